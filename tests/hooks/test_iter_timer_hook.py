from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fasttrain.hooks import IterTimerHook, iter_timer_hook
from fasttrain.logging import MessageHub


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the hook sees, in its only entry."""
    now = [100.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


def make_runner() -> Any:
    return SimpleNamespace(
        model=torch.nn.Linear(1, 1),
        message_hub=MessageHub("hub"),
        iter=0,
        max_iters=20,
        val_dataloader=[0] * 4,
        test_dataloader=[0] * 8,
    )


def spend(hook: IterTimerHook, runner: Any, clock: list[float], mode: str, index: int) -> None:
    """One iteration: a quarter of a second for data, one second in all."""
    clock[0] += 0.25
    getattr(hook, f"before_{mode}_iter")(runner, batch_idx=index)
    clock[0] += 0.75
    getattr(hook, f"after_{mode}_iter")(runner, batch_idx=index)


@pytest.mark.parametrize(("mode", "left"), [("train", [19, 18, 17]), ("val", [3, 2, 1])])
def test_times_and_time_left(clock: list[float], mode: str, left: list[float]) -> None:
    runner, hook, seen = make_runner(), IterTimerHook(), []
    hook.before_train(runner)
    getattr(hook, f"before_{mode}_epoch")(runner)
    for index in range(3):
        spend(hook, runner, clock, mode, index)
        seen.append(runner.message_hub.get_info("eta"))
        runner.iter += 1
    assert seen == left
    scalars = runner.message_hub.log_scalars
    assert scalars[f"{mode}/time"].data[0].tolist() == [1.0] * 3
    assert scalars[f"{mode}/data_time"].data[0].tolist() == [0.25] * 3


def test_test_uses_its_own_data(clock: list[float]) -> None:
    runner, hook = make_runner(), IterTimerHook()
    hook.before_test_epoch(runner)
    spend(hook, runner, clock, "test", 0)
    assert runner.message_hub.get_info("eta") == 7.0


def test_a_resumed_run_counts_its_own_iterations(clock: list[float]) -> None:
    runner, hook = make_runner(), IterTimerHook()
    runner.iter = 10
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    spend(hook, runner, clock, "train", 0)
    assert (hook.start_iter, hook.time_sec_tot) == (10, 1.0)
    assert runner.message_hub.get_info("eta") == 9.0


def test_each_validation_begins_anew(clock: list[float]) -> None:
    runner, hook = make_runner(), IterTimerHook()
    for slowdown in (1, 3):
        hook.before_val_epoch(runner)
        clock[0] += slowdown - 1
        spend(hook, runner, clock, "val", 0)
        assert hook.time_sec_test_val == slowdown
        assert runner.message_hub.get_info("eta") == 3.0 * slowdown
        hook.after_val_epoch(runner)
        assert hook.time_sec_test_val == 0
    assert hook.time_sec_tot == 0


def test_a_gpu_tells_its_own_time(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    class Lap:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def ready(self) -> bool:
            return True

        def resolve(self) -> float:
            return self.seconds

    laps = iter([0.5, 0.75, 1.5])
    started: list[str] = []
    monkeypatch.setattr(iter_timer_hook, "_is_on_gpu", lambda model: True)
    monkeypatch.setattr(
        iter_timer_hook,
        "DeviceClock",
        lambda: SimpleNamespace(start=lambda: started.append("x"), lap=lambda: Lap(next(laps))),
    )
    runner, hook = make_runner(), IterTimerHook()
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    for index in range(3):
        spend(hook, runner, clock, "train", index)
        runner.iter += 1
    assert runner.message_hub.pending and started == ["x"]
    assert runner.message_hub.get_info("eta") == 17.0, "the time left is by the host's clock"
    scalars = runner.message_hub.log_scalars
    assert scalars["train/time"].data[0].tolist() == [0.5, 0.75, 1.5]
    assert scalars["train/data_time"].data[0].tolist() == [0.25] * 3
    hook.before_val_epoch(runner)
    spend(hook, runner, clock, "val", 0)
    assert scalars["val/time"].data[0].tolist() == [1.0] and started == ["x"]


@pytest.mark.parametrize(
    ("batch", "speed"),
    [
        (torch.zeros(8, 2), [8.0]),
        ({"inputs": torch.zeros(4, 2), "labels": [1, 2]}, [4.0]),
        ({"scale": 1.0, "inputs": [torch.zeros(2)] * 3}, [3.0]),
        ((torch.zeros(6), torch.zeros(6)), [6.0]),
        ([torch.zeros(2)] * 5, [5.0]),
        (torch.zeros(()), []),
        (None, []),
        ({"name": "x"}, []),
    ],
)
def test_throughput(clock: list[float], batch: Any, speed: list[float]) -> None:
    runner, hook = make_runner(), IterTimerHook(throughput=True)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    clock[0] += 1.0
    hook.after_train_iter(runner, batch_idx=0, data_batch=batch)
    name = "train/samples_per_s"
    scalars = runner.message_hub.log_scalars
    assert (scalars[name].data[0].tolist() if name in scalars else []) == speed
