import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from fasttrain.hooks import LoggerHook
from fasttrain.hooks.log_moment import Moment
from fasttrain.logging import MessageHub
from fasttrain.runner.log_processor import LogProcessor
from slow_device import SlowReader


class Written:
    """A logger and a visualizer that remember, in one list."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tags: list[tuple[int, dict[str, Any]]] = []
        self.files: list[str | None] = []
        self.handlers: list[Any] = []
        self.closed = False

    def info(self, line: str) -> None:
        self.lines.append(line)

    def warning(self, line: str) -> None:
        self.lines.append(f"WARNING {line}")

    def add_scalars(self, tag: dict, step: int, file_path: str | None) -> None:
        self.tags.append((step, tag))
        self.files.append(file_path)

    def close(self) -> None:
        self.closed = True


def make_runner(length: int = 100, reader: Any = None, **changes: Any) -> Any:
    """All that the hook asks of a runner; training does `run`."""
    written = Written()
    loop = SimpleNamespace(dataloader=[0] * length)
    parts = {
        "message_hub": MessageHub("hub", reader=reader),
        "log_processor": LogProcessor(window_size=5),
        "logger": written,
        "visualizer": written,
        "experiment_name": "exp",
        "timestamp": "20220429",
        "epoch": 0,
        "iter": 0,
        "max_epochs": 3,
        "max_iters": 3 * length,
        "train_loop": loop,
        "val_loop": loop,
        "test_loop": loop,
        "_train_loop": loop,
        "train_dataloader": loop.dataloader,
        "val_dataloader": loop.dataloader,
        "test_dataloader": loop.dataloader,
    }
    return SimpleNamespace(written=written, **{**parts, **changes})


def run(
    runner: Any,
    hook: LoggerHook,
    steps: range,
    loss: Callable[[int], float] = float,
    on_device: bool = False,
) -> None:
    """Iterate: the loss of an iteration is a function of its number."""
    for runner.iter in steps:
        index = runner.iter % len(runner.train_dataloader)
        runner.message_hub.store.step = runner.iter
        value = loss(runner.iter)
        runner.message_hub.update_prefixed(
            "train/", {"lr": 0.1, "loss": torch.tensor(value) if on_device else value}
        )
        hook.after_train_iter(runner, index)


# --- settings -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"interval": 0}, ValueError, "interval must be greater than 0, got 0"),
        ({"interval": "a"}, TypeError, "interval must be an integer, got <class 'str'>"),
        ({"interval_exp_name": -1}, ValueError, "interval_exp_name must be greater than 0"),
        ({"ignore_last": 1}, TypeError, "ignore_last must be a boolean"),
        ({"keep_local": None}, TypeError, "keep_local must be a boolean"),
        ({"out_dir": 1}, TypeError, "out_dir must be a str or Path object, got <class 'int'>"),
        ({"out_suffix": 3}, TypeError, "should be a string or a sequence of string, but got"),
        ({"detect_anomaly": True}, ValueError, "must be 'warn', 'stop' or False, got True"),
        ({"file_client_args": {}}, ValueError, 'should be "None" when `out_dir` is not specified'),
        (
            {"out_dir": "o", "file_client_args": {}, "backend_args": {}},
            ValueError,
            '"file_client_args" and "backend_args" cannot be set at the same time',
        ),
    ],
)
def test_refuses(arguments: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        LoggerHook(**arguments)


# --- when a line is written ---------------------------------------------------------------
@pytest.mark.parametrize(
    ("length", "ignore_last", "logged"),
    [
        (12, True, [5, 10, 17, 22]),
        (12, False, [5, 10, 12, 17, 22, 24]),
        (3, True, [3, 6, 9]),
        (10, True, [5, 10, 15]),
    ],
)
def test_log_points(length: int, ignore_last: bool, logged: list[int]) -> None:
    runner, hook = make_runner(length), LoggerHook(interval=5, ignore_last=ignore_last)
    run(runner, hook, range(logged[-1]))
    assert [step for step, _ in runner.written.tags] == logged


def test_the_experiment_is_named() -> None:
    runner, hook = make_runner(8), LoggerHook(interval=100, interval_exp_name=5)
    run(runner, hook, range(16))
    names = [line for line in runner.written.lines if line == "Exp name: exp"]
    assert len(names) == 5  # after 5, 8, 10, 15 and 16


def test_a_line_and_its_tags() -> None:
    runner, hook = make_runner(), LoggerHook(interval=4)
    hook.before_run(SimpleNamespace(timestamp="20220429"))
    run(runner, hook, range(8))
    assert runner.written.lines[1] == ("Epoch(train) [1][  8/100]  lr: 1.0000e-01  loss: 5.0000")
    assert runner.written.tags[1] == (8, {"lr": 0.1, "loss": 5.0, "epoch": 1, "iter": 8})
    assert runner.written.files == ["20220429.json"] * 2


@pytest.mark.parametrize("mode", ["val", "test"])
def test_evaluation_lines(mode: str) -> None:
    runner, hook = make_runner(7), LoggerHook(interval=3)
    for index in range(7):
        getattr(hook, f"after_{mode}_iter")(runner, index)
    assert [line.split("]")[-2][-3:] for line in runner.written.lines] == ["3/7", "6/7"]


@pytest.mark.parametrize(
    ("by_epoch", "trains", "step"), [(True, True, 2), (False, True, 14), (True, False, 0)]
)
def test_metrics_of_a_validation(by_epoch: bool, trains: bool, step: int) -> None:
    runner = make_runner(7, epoch=2, iter=14)
    runner._train_loop = runner.train_loop if trains else {"by_epoch": True}
    runner.message_hub.update_scalar("val/acc", 0.75)
    hook = LoggerHook(log_metric_by_epoch=by_epoch)
    hook.after_val_epoch(runner)
    epoch = 2 if trains else 0
    assert runner.written.lines == [f"Epoch(val) [{epoch}][7/7]    acc: 0.7500"]
    assert runner.written.tags == [(step, {"acc": 0.75})]


def test_metrics_of_a_test_are_kept_as_json(tmp_path: Path) -> None:
    runner, hook = make_runner(7, log_dir=str(tmp_path)), LoggerHook()
    hook.before_run(runner)
    runner.message_hub.update_scalar("test/acc", 0.75)
    runner.message_hub.update_info("test/matrix", torch.eye(2))
    hook.after_test_epoch(runner)
    saved = json.loads((tmp_path / "20220429.json").read_text())
    assert saved == {"acc": 0.75, "matrix": [[1.0, 0.0], [0.0, 1.0]]}
    assert runner.written.tags == []


def test_a_runner_of_mocks_is_enough() -> None:
    runner, hook = MagicMock(), LoggerHook()
    runner.log_processor.get_log_after_iter = MagicMock(return_value=({"a": 1}, "line"))
    hook.after_train_iter(runner, batch_idx=5)
    runner.log_processor.get_log_after_iter.assert_not_called()
    hook.after_train_iter(runner, batch_idx=9)
    runner.logger.info.assert_called_once_with("line")


# --- copies -------------------------------------------------------------------------------
@pytest.mark.parametrize("keep_local", [True, False])
def test_logs_are_copied(tmp_path: Path, keep_local: bool) -> None:
    log_dir = tmp_path / "work" / "20220429"
    log_dir.mkdir(parents=True)
    (log_dir / "a.json").write_text("{}")
    runner = make_runner(work_dir=f"{tmp_path}/work/", _log_dir=str(log_dir))
    hook = LoggerHook(out_dir=tmp_path / "out", keep_local=keep_local)
    hook.before_run(runner)
    assert hook.out_dir == f"{tmp_path}/out/work"
    hook.after_run(runner)
    assert runner.written.closed
    assert (tmp_path / "out" / "work" / "a.json").read_text() == "{}"
    assert (log_dir / "a.json").exists() == keep_local
    first, second = runner.written.lines[:2]
    assert first == f"Text logs will be saved to {tmp_path}/out/work after the training process."
    assert second.startswith(f"The file {log_dir}/a.json has been uploaded to")


def test_without_an_out_dir_nothing_is_copied(tmp_path: Path) -> None:
    runner = make_runner(_log_dir=str(tmp_path))
    LoggerHook().after_run(runner)
    assert runner.written.lines == [] and runner.written.closed


# --- a loss that is not finite -----------------------------------------------------------
def nan_at(*steps: int) -> Callable[[int], float]:
    return lambda step: float("nan") if step in steps else 1.0


@pytest.mark.parametrize("on_device", [False, True])
def test_a_nonfinite_loss_is_named_once(on_device: bool) -> None:
    runner = make_runner(reader=SlowReader() if on_device else None)
    hook = LoggerHook(interval=5)
    run(runner, hook, range(20), nan_at(6, 7, 12), on_device)
    runner.message_hub.flush()
    warnings = [line for line in runner.written.lines if line.startswith("WARNING")]
    assert warnings == ["WARNING non-finite training loss: loss (last in iteration 8)"]


@pytest.mark.parametrize("on_device", [False, True])
def test_a_nonfinite_loss_may_stop_the_run(on_device: bool) -> None:
    runner = make_runner(reader=SlowReader() if on_device else None)
    hook = LoggerHook(interval=5, detect_anomaly="stop")
    with pytest.raises(FloatingPointError, match=r"loss \(last in iteration 3\). Lower the"):
        run(runner, hook, range(20), nan_at(2), on_device)
    assert runner.iter == (9 if on_device else 4), "noticed within one log period"


@pytest.mark.parametrize("stage", ["after_train_iter", "before_val", "after_train"])
def test_a_reader_is_not_the_one_who_stops_the_run(stage: str) -> None:
    runner = make_runner(reader=SlowReader())
    hook = LoggerHook(interval=5, detect_anomaly="stop")
    run(runner, hook, range(6), nan_at(2), on_device=True)
    seen: list[int] = []
    reading = threading.Thread(
        target=lambda: seen.append(len(runner.message_hub.get_scalar("train/loss").data[0]))
    )
    reading.start()
    reading.join()
    assert seen == [6] and len(runner.written.lines) == 1
    with pytest.raises(FloatingPointError, match=r"loss \(last in iteration 3\)"):
        getattr(hook, stage)(runner, *([6] if stage == "after_train_iter" else []))
    hook.on_exception(runner)


def test_other_scalars_may_be_infinite() -> None:
    runner, hook = make_runner(), LoggerHook(interval=2, detect_anomaly="stop")
    runner.message_hub.update_scalar("train/grad_norm", float("inf"))
    run(runner, hook, range(4))
    hook = LoggerHook(interval=2, detect_anomaly=False)
    run(runner, hook, range(4), nan_at(1))
    assert not any("non-finite" in line for line in runner.written.lines)


# --- a slow device ------------------------------------------------------------------------
def expected(length: int, steps: range, interval: int) -> tuple[list[str], list[Any]]:
    runner, hook = make_runner(length), LoggerHook(interval=interval)
    run(runner, hook, steps)
    return runner.written.lines, runner.written.tags


def test_a_line_comes_when_its_numbers_have_landed() -> None:
    reader = SlowReader()
    runner, hook = make_runner(reader=reader), LoggerHook(interval=5)
    run(runner, hook, range(7), on_device=True)
    assert runner.written.lines == [] and len(reader.transfers) == 1
    reader.land()
    run(runner, hook, range(7, 8), on_device=True)
    lines, tags = expected(100, range(5), 5)
    assert (runner.written.lines, runner.written.tags) == (lines, tags)
    assert reader.num_waits == 0


@pytest.mark.parametrize("lands_after", [0, 1, 4, 1000])
def test_lines_are_those_of_a_fast_device(lands_after: int) -> None:
    reader = SlowReader()
    runner, hook = make_runner(12, reader=reader), LoggerHook(interval=5)
    begun: dict[int, int] = {}
    for step in range(30):
        for index, transfer in enumerate(reader.transfers):
            begun.setdefault(index, step)
            transfer.landed |= step - begun[index] >= lands_after
        run(runner, hook, range(step, step + 1), on_device=True)
    # Only a copy that takes a whole interval is waited for, and what an epoch's end cuts short.
    assert reader.num_waits == {0: 0, 1: 0, 4: 2, 1000: 4}[lands_after]
    runner.message_hub.flush()
    assert (runner.written.lines, runner.written.tags) == expected(12, range(30), 5)


def test_the_end_of_an_epoch_leaves_no_line_behind() -> None:
    runner, hook = make_runner(10, reader=SlowReader()), LoggerHook(interval=5)
    run(runner, hook, range(10), on_device=True)
    assert (runner.written.lines, runner.written.tags) == expected(10, range(10), 5)


def test_a_checkpoint_comes_after_the_line() -> None:
    runner, hook = make_runner(reader=SlowReader()), LoggerHook(interval=5)
    run(runner, hook, range(7), on_device=True)
    state = runner.message_hub.state_dict()
    assert runner.written.lines == expected(100, range(5), 5)[0]
    assert len(state["log_scalars"]["train/loss"].data[0]) == 7


@pytest.mark.parametrize("end", ["on_exception", "after_run"])
def test_no_end_loses_a_line(end: str, tmp_path: Path) -> None:
    runner, hook = make_runner(reader=SlowReader(), _log_dir=str(tmp_path)), LoggerHook(interval=5)
    run(runner, hook, range(7), on_device=True)
    getattr(hook, end)(runner)
    assert runner.written.lines == expected(100, range(5), 5)[0]


def test_a_process_that_just_ends_loses_no_line(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
from test_logger_hook import LoggerHook, SlowReader, make_runner, run
runner = make_runner(reader=SlowReader())
runner.logger.info = lambda line: print(line, flush=True)
run(runner, LoggerHook(interval=5), range(7), on_device=True)
print("end", flush=True)
raise RuntimeError("broken")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["end", *expected(100, range(5), 5)[0]]
    assert "RuntimeError: broken" in done.stderr


def test_a_hook_does_not_keep_its_hub_alive() -> None:
    runner, hook = make_runner(reader=SlowReader()), LoggerHook(interval=5)
    run(runner, hook, range(7), on_device=True)
    runner.message_hub.flush()
    hook._under_way = None
    del runner
    gc.collect()
    assert hook._guarded is not None and hook._guarded() is None


def test_a_moment_keeps_progress_and_notes() -> None:
    runner = make_runner(iter=4, epoch=1)
    runner.message_hub.update_info("eta", 10)
    moment = Moment(runner)
    runner.iter, runner.epoch = 7, 2
    runner.message_hub.update_info("eta", 5)
    runner.message_hub.update_scalar("train/loss", 1.0)
    assert (moment.iter, moment.epoch, moment.max_epochs) == (4, 1, 3)
    assert moment.message_hub.get_info("eta") == 10 == moment.message_hub.runtime_info["eta"]
    assert moment.message_hub.get_info("gone", 3) == 3
    assert moment.message_hub.get_scalar("train/loss").current() == 1.0
