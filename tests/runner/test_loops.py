"""The loops: order of the stages, validation in between, empty data, losses of a validation."""

from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from fasttrain.evaluator import Evaluator
from fasttrain.hooks import Hook
from fasttrain.logging import HistoryBuffer
from fasttrain.registry import DATASETS
from fasttrain.runner import EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop, ValLoop
from fasttrain.runner.loops import _InfiniteDataloaderIterator, _parse_losses, _update_losses
from support import assert_same


class Trace(Hook):
    """Notes every stage with the counters of its moment."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int]] = []
        for stage in Hook.stages:
            setattr(self, stage, self._noting(stage))

    def _noting(self, stage: str) -> Any:
        return lambda runner, *args, **kwargs: self.stages.append(
            (stage, runner.epoch, runner.iter)
        )

    def names(self) -> list[str]:
        return [stage for stage, _, _ in self.stages]

    def at(self, stage: str) -> list[tuple[int, int]]:
        return [(epoch, iter) for name, epoch, iter in self.stages if name == stage]


def traced(make_runner: Any, **changes: Any) -> tuple[Any, Trace]:
    runner, trace = make_runner(**changes), Trace()
    runner.register_hook(trace)
    return runner, trace


def test_order_of_the_stages_by_epoch(make_runner: Any) -> None:
    runner, trace = traced(make_runner, train_cfg={"by_epoch": True, "max_epochs": 1})
    assert runner.train() is runner.model
    iters = ["before_train_iter", "after_train_iter"] * 4
    val_iters = ["before_val_iter", "after_val_iter"] * 4
    assert trace.names() == [
        "before_run", "before_train", "before_train_epoch", *iters,
        "before_save_checkpoint", "after_train_epoch",
        "before_val", "before_val_epoch", *val_iters, "after_val_epoch", "after_val",
        "after_train", "after_run",
    ]  # fmt: skip
    assert trace.at("after_train_epoch") == [(0, 4)]
    assert trace.at("before_val") == [(1, 4)]


def test_order_of_the_stages_by_iteration(make_runner: Any) -> None:
    runner, trace = traced(
        make_runner, train_cfg={"by_epoch": False, "max_iters": 5, "val_interval": 2}
    )
    runner.train()
    assert trace.names().count("before_train_epoch") == 1
    assert trace.at("before_train_iter") == [(0, n) for n in range(5)]
    assert trace.at("before_val") == [(0, 2), (0, 4), (0, 5)]
    assert trace.names()[-3:] == ["after_train_epoch", "after_train", "after_run"]


@pytest.mark.parametrize("by_epoch", [True, False])
def test_iterations_go_through_an_own_call_hook(make_runner: Any, by_epoch: bool) -> None:
    count = {"max_epochs": 1} if by_epoch else {"max_iters": 4}
    runner = make_runner(train_cfg={"by_epoch": by_epoch, **count})
    stages, original = [], runner.call_hook

    def own(fn_name: str, **kwargs: Any) -> None:
        stages.append((fn_name, sorted(kwargs)))
        original(fn_name, **kwargs)

    runner.call_hook = own
    runner.train()
    assert stages.count(("before_train_iter", ["batch_idx", "data_batch"])) == 4
    assert stages.count(("after_train_iter", ["batch_idx", "data_batch", "outputs"])) == 4


def test_a_type_error_of_an_iteration_names_the_hook(make_runner: Any) -> None:
    class Wrong(Hook):
        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            pass

    runner = make_runner()
    runner.register_hook(Wrong())
    with pytest.raises(TypeError, match=r"unexpected keyword argument.* in <.*Wrong object"):
        runner.train()


@pytest.mark.parametrize(
    ("train_cfg", "validated"),
    [
        ({"max_epochs": 5, "val_interval": 2, "val_begin": 3}, [4, 5]),
        ({"max_epochs": 7, "val_interval": 3, "dynamic_intervals": [(4, 2)]}, [4, 6, 7]),
        ({"max_epochs": 3, "val_interval": 10}, [3]),
    ],
)
def test_when_epochs_are_validated(make_runner: Any, train_cfg: dict, validated: list) -> None:
    runner, trace = traced(make_runner, train_cfg={"by_epoch": True, **train_cfg})
    runner.train()
    assert [epoch for epoch, _ in trace.at("before_val")] == validated


def test_when_iterations_are_validated(make_runner: Any) -> None:
    train_cfg = {"by_epoch": False, "max_iters": 11, "val_interval": 3, "val_begin": 1}
    runner, trace = traced(make_runner, train_cfg={**train_cfg, "dynamic_intervals": [(5, 2)]})
    runner.train()
    assert [iter for _, iter in trace.at("before_val")] == [3, 4, 6, 8, 10, 11]


@pytest.mark.parametrize("by_epoch", [True, False])
def test_the_model_trains_in_training_mode_after_a_validation(
    make_runner: Any, by_epoch: bool
) -> None:
    train_cfg = {"by_epoch": by_epoch, "max_epochs" if by_epoch else "max_iters": 2}
    runner = make_runner(train_cfg={**train_cfg, "val_interval": 1})
    runner.train()
    modes = runner.model.modes
    per_pass = 4 if by_epoch else 1
    assert modes == ([True] * per_pass + [False] * 4) * 2


@pytest.mark.parametrize("by_epoch", [True, False])
def test_stop_training_ends_the_loop(make_runner: Any, by_epoch: bool) -> None:
    class StopSoon(Hook):
        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            runner.train_loop.stop_training = True

    count = {"max_epochs": 3} if by_epoch else {"max_iters": 12}
    runner = make_runner(train_cfg={"by_epoch": by_epoch, **count})
    runner.register_hook(StopSoon())
    runner.train()
    assert runner.iter == (4 if by_epoch else 1)


@pytest.mark.parametrize(
    ("cls", "name"), [(EpochBasedTrainLoop, "max_epochs"), (IterBasedTrainLoop, "max_iters")]
)
def test_lengths_are_whole_numbers(make_runner: Any, cls: type, name: str) -> None:
    runner = make_runner()
    loop = cls(runner, runner._train_dataloader, **{name: 3.0})
    assert getattr(loop, name) == 3
    assert isinstance(getattr(loop, name), int)
    for bad in (1.5, "3"):
        with pytest.raises(AssertionError, match=f"`{name}` should be a integer number, but get"):
            cls(runner, runner._train_dataloader, **{name: bad})


@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_empty_data_is_refused(make_runner: Any, mode: str) -> None:
    loader = DataLoader(
        DATASETS.build({"type": "LineData", "length": 2}), batch_size=3, drop_last=True
    )
    runner = make_runner(**{f"{mode}_dataloader": loader})
    with pytest.raises(ValueError, match=f"the {mode} dataloader is empty: expected at least one"):
        getattr(runner, mode)()


def test_an_endless_loop_over_nothing_is_refused() -> None:
    class Nothing(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match="gave no batch in a whole pass"):
        next(_InfiniteDataloaderIterator(DataLoader(Nothing())))


def test_infinite_iterator_counts_passes_and_tells_the_sampler() -> None:
    loader = DataLoader([1, 2, 3])
    epochs: list[int] = []
    loader.sampler.set_epoch = epochs.append
    iterator = _InfiniteDataloaderIterator(loader)
    assert iter(iterator) is iterator
    assert [int(next(iterator)) for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]
    assert iterator._epoch == 2
    assert set(epochs) == {1, 2}


class Sample:
    """A data element with fields only, as structures of downstream packages are."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def keys(self) -> list[str]:
        return list(self.__dict__)


def test_losses_are_taken_off_the_outputs() -> None:
    losses: dict[str, HistoryBuffer] = {}
    plain = [Sample(boxes=1)]
    assert _update_losses(plain, losses)[0] is plain
    entry = Sample(loss={"loss_a": torch.tensor(1.0), "b": [torch.tensor(2.0), torch.tensor(3.0)]})
    outputs, losses = _update_losses([*plain, entry], losses)
    assert outputs == plain
    outputs, losses = _update_losses([*plain, Sample(loss={"loss_a": torch.tensor(3.0)})], losses)
    assert _parse_losses(losses, "val") == {"loss_a": 2.0, "b": 2.5, "val_loss": 2.0}
    assert _parse_losses({}, "test") == {"test_loss": 0}


def test_losses_of_a_validation_are_metrics(make_runner: Any) -> None:
    runner = make_runner()
    runner.model.val_step = lambda data: [
        *data["inputs"].sum(-1),
        Sample(loss={"loss": data["inputs"].sum()}),
    ]
    metrics = runner.val()
    total = sum(float(batch["inputs"].sum()) for batch in runner.val_dataloader) / 4
    assert metrics["val_loss"] == pytest.approx(total)
    assert metrics["toy/count"] == 12
    assert set(runner.val_loop.val_loss) == {"loss"}


@pytest.mark.parametrize("cls", [ValLoop, TestLoop])
def test_evaluators_are_built_or_checked(make_runner: Any, cls: type) -> None:
    runner = make_runner()
    loader = runner._val_dataloader
    built = Evaluator({"type": "CountMetric"})
    assert cls(runner, loader, built).evaluator is built
    assert isinstance(cls(runner, loader, [{"type": "CountMetric"}]).evaluator, Evaluator)
    assert built.dataset_meta == {"classes": ("line",)}
    with pytest.raises(AssertionError, match="evaluator must be one of dict, list or Evaluator"):
        cls(runner, loader, 3)


def test_fp16_evaluates_under_autocast(make_runner: Any) -> None:
    dtypes: list[torch.dtype] = []
    for fp16 in (True, False):
        runner = make_runner(val_cfg={"fp16": fp16})
        runner.model.linear.register_forward_hook(lambda m, i, out: dtypes.append(out.dtype))
        runner.val()
    assert set(dtypes[:4]) == {torch.bfloat16 if not torch.cuda.is_available() else torch.float16}
    assert set(dtypes[4:]) == {torch.float32}


@pytest.mark.parametrize("by_epoch", [True, False])
def test_prefetching_trains_alike(make_runner: Any, tmp_path: Any, by_epoch: bool) -> None:
    count = {"max_epochs": 2} if by_epoch else {"max_iters": 8}
    results = []
    for prefetch in (False, True):
        train_cfg = {"by_epoch": by_epoch, "prefetch": prefetch, **count}
        runner = make_runner(train_cfg=train_cfg, work_dir=str(tmp_path / str(prefetch)))
        results.append(dict(runner.train().state_dict()))
    assert_same(*results)


@pytest.mark.parametrize("kind", [ValLoop, TestLoop])
def test_evaluation_with_a_mock_for_a_runner(kind: type) -> None:
    runner = MagicMock()
    runner.model.val_step.return_value = runner.model.test_step.return_value = [torch.zeros(1)]
    loop = kind(runner, DataLoader([1, 2, 3]), Evaluator([]))
    assert loop.run() == {}
    stages = [call.args[0] for call in runner.call_hook.call_args_list]
    assert stages.count(f"after_{loop.mode}_iter") == 3
    assert stages[-1] == f"after_{loop.mode}"


@pytest.mark.parametrize("kind", [EpochBasedTrainLoop, IterBasedTrainLoop])
def test_a_training_loop_runs_with_a_mock_for_a_runner(kind: Any) -> None:
    runner = MagicMock()
    length = {"max_epochs": 2} if kind is EpochBasedTrainLoop else {"max_iters": 6}
    loop = kind(runner, DataLoader(list(range(3))), val_begin=100, **length)
    assert loop.run() is runner.model
    assert runner.model.train_step.call_count == 6
    stages = [call.args[0] for call in runner.call_hook.call_args_list]
    assert stages.count("before_train_iter") == stages.count("after_train_iter") == 6
    assert stages[0] == "before_train" and stages[-1] == "after_train"
