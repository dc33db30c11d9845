"""The engine's hooks: when they act, what they put, what they keep."""

from __future__ import annotations

import json
import math
import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.core.checkpoint import CheckpointError
from fasttrain.engine import (
    AutogradProfiler,
    BestCheckpointer,
    CallbackHook,
    Checkpointer,
    EvalHook,
    LRScheduler,
    ModelWeightsManipulating,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
    ScheduledSampling,
    TorchMemoryStats,
    TorchProfiler,
    TrainerBase,
)
from fasttrain.engine.events import get_event_storage
from fasttrain.engine.hooks import evaluation
from fasttrain.engine.hooks.common import shown_group
from fasttrain.engine.writers import EventWriter
from support import assert_same


class Trainer(TrainerBase):
    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.model: Any = nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.5)
        self.fail_at = fail_at

    def run_step(self) -> None:
        if self.iter == self.fail_at:
            raise RuntimeError("broken")
        self.model(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()


def test_the_rate_is_put_before_the_scheduler_steps() -> None:
    trainer = Trainer()
    trainer.register_hooks([LRScheduler()])
    trainer.train(0, 3)
    assert trainer.storage.history("lr").values() == [(1.0, 0), (0.5, 1), (0.25, 2)]
    assert trainer.storage.smoothing_hints() == {"lr": False}
    other = Trainer()
    other.register_hooks([LRScheduler()])
    other.load_state_dict(trainer.state_dict())
    assert other.scheduler.last_epoch == 3


def test_the_rate_shown_is_that_of_most_parameters() -> None:
    def groups(*sizes_and_rates: tuple[int, float]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            [{"params": [torch.zeros(1) for _ in range(n)], "lr": lr} for n, lr in sizes_and_rates],
            lr=1.0,
        )

    assert LRScheduler.get_best_param_group_id(groups((1, 0.1), (3, 0.2), (2, 0.3))) == 1
    assert shown_group(groups((1, 0.1), (1, 0.2), (1, 0.2))) == 1


def test_a_schedule_by_the_share_of_the_training_multiplies_the_first_rate() -> None:
    def make() -> Trainer:
        trainer = Trainer()
        trainer.register_hooks([LRScheduler(scheduler=lambda share: 1.0 - share)])
        return trainer

    whole, cut, resumed = make(), make(), make()
    whole.train(0, 4)
    rates = whole.storage.history("lr").values()
    assert rates == [(1.0, 0), (0.75, 1), (0.5, 2), (0.25, 3)]
    cut.register_hooks([CallbackHook(before_step=lambda t: 1 / (2 - t.iter))])
    with pytest.raises(ZeroDivisionError):
        cut.train(0, 4)
    resumed.optimizer.load_state_dict(cut.optimizer.state_dict())
    resumed.train(2, 4)
    assert resumed.storage.history("lr").values() == rates[2:]
    assert cut.state_dict() == {"iteration": 2}


class Counter(EventWriter):
    def __init__(self) -> None:
        self.written: list[int] = []
        self.closed = 0

    def write(self) -> None:
        self.written.append(get_event_storage().iter)

    def close(self) -> None:
        self.closed += 1


def test_writers_write_each_period_at_the_last_step_and_when_closing() -> None:
    writer = Counter()
    trainer = Trainer()
    trainer.register_hooks([PeriodicWriter([writer], period=3)])
    trainer.train(0, 7)
    assert (writer.written, writer.closed) == ([2, 5, 6, 7], 1)
    crashed = Counter()
    trainer = Trainer(fail_at=4)
    trainer.register_hooks([PeriodicWriter([crashed], period=3)])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train(0, 7)
    assert (crashed.written, crashed.closed) == ([2, 4], 1)  # nothing since the last write is lost
    with pytest.raises(TypeError, match="writers must be EventWriters, got str"):
        PeriodicWriter(["x"])  # type: ignore[list-item]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


def test_checkpoints_by_the_clock(tmp_path: Path) -> None:
    trainer = Trainer()
    checkpointer = Checkpointer(trainer.model, tmp_path, trainer=weakref.proxy(trainer))
    hook = PeriodicCheckpointer(checkpointer, 2, max_to_keep=2)
    trainer.register_hooks([hook])
    trainer.train(0, 7)
    assert names(tmp_path) == ["model_0000003.pth", "model_0000005.pth", "model_final.pth"]
    assert torch.load(tmp_path / "model_final.pth")["iteration"] == 6

    again = Trainer()  # the retention goes on where it was
    checkpointer = Checkpointer(again.model, tmp_path, trainer=weakref.proxy(again))
    again.register_hooks([PeriodicCheckpointer(checkpointer, 2, max_to_keep=2)])
    checkpointer.resume_or_load("")
    again.train(again.iter + 1, 9)
    assert names(tmp_path) == ["model_0000005.pth", "model_0000007.pth", "model_final.pth"]


def test_a_file_that_cannot_be_written_is_an_error_of_the_end(tmp_path: Path) -> None:
    trainer = Trainer()
    checkpointer = Checkpointer(trainer.model, tmp_path)
    (tmp_path / "model_final.pth").mkdir()
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, 2)])
    with pytest.raises(CheckpointError, match=r"model_final\.pth' could not be saved"):
        trainer.train(0, 2)
    assert trainer.iter == 2
    assert names(tmp_path) == ["model_0000001.pth", "model_final.pth"]
    checkpointer.save("later")  # the folder is free again, and saves wait by themselves
    assert (tmp_path / "later.pth").is_file()


def test_leftovers_of_killed_processes_are_cleared(tmp_path: Path) -> None:
    host = socket.gethostname().replace("+", "_")
    leftover = tmp_path / f".model.pth.{host}+999999999+0123abcd.tmp"
    leftover.touch()
    trainer = Trainer()
    trainer.register_hooks([PeriodicCheckpointer(Checkpointer(trainer.model, tmp_path), 2)])
    trainer.train(0, 1)
    assert not leftover.exists()


def test_every_writer_is_closed_whatever_another_one_raises() -> None:
    class Broken(Counter):
        def write(self) -> None:
            super().write()
            raise OSError("disk full")

    broken, sound = Broken(), Counter()
    trainer = Trainer()
    trainer.register_hooks([PeriodicWriter([broken, sound], period=100)])
    with pytest.raises(OSError, match="disk full"):
        trainer.train(0, 1)
    assert (broken.closed, sound.closed) == (1, 1)
    assert sound.written == [0]


def test_names_by_epoch(tmp_path: Path) -> None:
    trainer = Trainer()
    checkpointer = Checkpointer(trainer.model, tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, 4, iters_per_epoch=4)])
    trainer.train(0, 4)
    assert names(tmp_path) == ["model_Epoch_00001_Iter_0000003.pth", "model_final.pth"]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_checkpoint_follows_the_metric(tmp_path: Path, mode: str) -> None:
    scores = iter([math.nan, 0.3, 0.1, 0.9, math.nan, 0.2])
    trainer = Trainer()
    hook = BestCheckpointer(1, Checkpointer(trainer.model, tmp_path), "acc", mode)
    trainer.register_hooks([EvalHook(1, lambda: {"acc": next(scores)}), hook])
    trainer.train(0, 6)
    assert names(tmp_path) == ["model_best.pth"]
    assert hook.state_dict() == {
        "best_metric": 0.9 if mode == "max" else 0.1,
        "best_iter": 3 if mode == "max" else 2,
    }


def test_a_missing_metric_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer()
    checkpointer = Checkpointer(trainer.model, tmp_path)
    trainer.register_hooks([BestCheckpointer(1, checkpointer, "bbox/AP")])
    trainer.train(0, 2)
    assert "val metric bbox/AP does not seem to be computed" in caplog.text
    assert names(tmp_path) == []


def test_evaluation_by_iterations_runs_once_at_the_end() -> None:
    calls: list[int] = []
    trainer = Trainer()

    def evaluate() -> dict:
        calls.append(trainer.iter)
        return {"box": {"AP": 1.5}}

    trainer.register_hooks([EvalHook(2, evaluate)])
    trainer.train(0, 4)
    assert calls == [1, 4]
    assert trainer.storage.history("box/AP").values() == [(1.5, 1), (1.5, 4)]


@pytest.mark.parametrize(
    ("is_main", "everywhere", "log"),
    [
        (True, False, ["all here", "evaluated", "all here"]),
        (False, False, ["all here", "all here"]),
        (False, True, ["all here", "evaluated", "all here"]),
    ],
)
def test_processes_meet_before_and_after_an_evaluation(
    is_main: bool, everywhere: bool, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(evaluation.comm, "synchronize", lambda: seen.append("all here"))
    monkeypatch.setattr(evaluation.comm, "is_main_process", lambda: is_main)

    def evaluate(epoch: int) -> dict:
        seen.append("evaluated")
        return {"acc": 1.0}

    trainer = Trainer()
    trainer.register_hooks([EvalHook(1, -1, evaluate, 1, "val", everywhere)])
    trainer.train(0, 1)
    assert seen == log
    assert ("val/acc" in trainer.storage.histories()) == ("evaluated" in log)


@pytest.mark.parametrize(
    ("args", "kwargs", "at"),
    [
        ((2, False), {}, [1, 3]),
        ((2,), {"eval_after_train": False}, [1, 3]),
        ((), {"eval_period": 3}, [2, 5]),
    ],
)
def test_both_forms_take_positions_and_names(args: tuple, kwargs: dict, at: list[int]) -> None:
    calls: list[int] = []
    trainer = Trainer()

    def evaluate(*epoch: int) -> None:
        calls.append(trainer.iter)

    if args:
        hook = EvalHook(args[0], evaluate, *args[1:], **kwargs)
    else:
        hook = EvalHook(eval_function=evaluate, **kwargs)
    trainer.register_hooks([hook])
    trainer.train(0, 5)
    assert calls == at


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((1, 2), "eval_start=2, eval_function=None"),
        ((1, 2, print), "eval_start=2, eval_function=<built-in function print> and iters_per_"),
        ((1,), "eval_function=None"),
    ],
)
def test_arguments_of_neither_form_are_shown(args: tuple, text: str) -> None:
    with pytest.raises(TypeError, match=rf"expected EvalHook\(eval_period, eval_func.*{text}"):
        EvalHook(*args)
    with pytest.raises(ValueError, match="iters_per_epoch must be >= 1, got 0"):
        EvalHook(1, -1, print, 0, "val", False)


def test_no_evaluation_after_an_error_at_the_last_step() -> None:
    calls: list[int] = []
    trainer = Trainer(fail_at=3)
    trainer.register_hooks([EvalHook(0, lambda: calls.append(1))])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train(0, 4)
    assert calls == []


def test_evaluation_by_epochs_keeps_stages_apart() -> None:
    epochs: list[int] = []
    trainer = Trainer()

    def evaluate(epoch: int) -> dict:
        epochs.append(epoch)
        return {"acc": epoch}

    trainer.register_hooks(
        [EvalHook(1, 1, evaluate, 2, "val", False), EvalHook(1, -1, evaluate, 2, "test", True)]
    )
    trainer.train(0, 6)
    assert epochs == [1, 2, 2, 3, 3]
    assert trainer.storage.latest()["val/acc"] == (3.0, 6)
    assert [v for v, _ in trainer.storage.history("test/acc").values()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("result", "error", "text"),
    [({"a": "x"}, ValueError, "name -> float, got 'a': 'x'"), (3, TypeError, "got 3")],
)
def test_results_must_be_floats(result: Any, error: type[Exception], text: str) -> None:
    trainer = Trainer()
    trainer.register_hooks([EvalHook(1, lambda: result)])
    with pytest.raises(error, match=text):
        trainer.train(0, 2)


def test_precise_bn_equals_the_statistics_of_all_batches() -> None:
    torch.manual_seed(0)
    data = [torch.randn(16, 3) * 2 + 1 for _ in range(4)]
    model = nn.BatchNorm1d(3)
    putting = nn.Sequential(model)
    putting.register_forward_hook(lambda *_: get_event_storage().put_scalar("leak", 1.0))
    trainer = Trainer()
    trainer.register_hooks([PreciseBN(0, putting, data, 4)])
    trainer.train(0, 1)
    everything = torch.cat(data)
    torch.testing.assert_close(model.running_mean, everything.mean(0))
    means = torch.stack([batch.mean(0) for batch in data])
    within = torch.stack([batch.var(0) for batch in data]).mean(0)
    expected = within + (means**2).mean(0) - means.mean(0) ** 2
    torch.testing.assert_close(model.running_var, expected)
    assert model.momentum == 0.1
    assert "leak" not in trainer.storage.histories()


def test_precise_bn_without_layers_does_nothing() -> None:
    model = nn.BatchNorm1d(3).eval()
    before = model.running_mean.clone()
    PreciseBN(1, model, [torch.ones(2, 3)], 1).update_stats()
    assert torch.equal(model.running_mean, before)


def test_scheduled_sampling_depends_on_the_iteration_only() -> None:
    hook = ScheduledSampling(1, 2, 0.1, 0.25, iters_per_epoch=10)
    assert [round(hook.probability(e * 10), 6) for e in range(10)] == [
        0.0, 0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.25, 0.25, 0.25,
    ]  # fmt: skip
    trainer = Trainer()
    seen: list[float] = []
    trainer.register_hooks([hook])
    trainer.run_step = lambda: seen.append(trainer.ss_prob)  # type: ignore[method-assign]
    trainer.train(50, 51)  # the first step after resuming
    assert seen == [0.2]


def test_weights_are_bound_under_a_wrapper_too() -> None:
    calls: list[str] = []

    class Bindable(nn.Linear):
        def bind_or_init_weights(self) -> None:
            calls.append("bound")

    trainer = Trainer()
    trainer.model = nn.DataParallel(Bindable(2, 1))
    trainer.register_hooks([ModelWeightsManipulating()])
    trainer.train(0, 1)
    assert calls == ["bound"]


def test_the_average_is_bound_as_the_model_is() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 3)

        def bind_or_init_weights(self) -> None:
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x)))

    trainer = Trainer()
    trainer.model = Tied()
    trainer.ema = torch.optim.swa_utils.AveragedModel(trainer.model)  # type: ignore[attr-defined]
    trainer.register_hooks([ModelWeightsManipulating()])
    trainer.train(0, 1)
    average = trainer.ema.module  # type: ignore[attr-defined]
    assert average.b.weight is average.a.weight
    trainer.ema.update_parameters(trainer.model)  # type: ignore[attr-defined]
    assert_same(average.state_dict(), trainer.model.state_dict())


@pytest.mark.filterwarnings("ignore::Warning")
def test_profiles_of_the_chosen_iterations(tmp_path: Path) -> None:
    trainer = Trainer()
    trainer.register_hooks([AutogradProfiler(lambda t: t.iter == 1, tmp_path, use_cuda=False)])
    trainer.train(0, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["profiler-trace-iter1.json"]
    assert json.loads((tmp_path / "profiler-trace-iter1.json").read_text())["traceEvents"]


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_profiler_is_stopped_by_an_error(tmp_path: Path) -> None:
    trainer = Trainer(fail_at=0)
    hook = TorchProfiler(lambda t: True, tmp_path)
    trainer.register_hooks([hook])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train(0, 1)
    assert hook._profiler is None


def test_memory_statistics_need_a_gpu_and_say_nothing_without() -> None:
    trainer = Trainer()
    hook = TorchMemoryStats(period=1, max_runs=1)
    trainer.register_hooks([hook])
    trainer.train(0, 2)
    assert hook._runs == (1 if torch.cuda.is_available() else 0)
