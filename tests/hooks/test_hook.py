"""The base class of hooks: which stages do something, and when n-th calls are due."""

from types import SimpleNamespace
from typing import Any

import pytest

from fasttrain.hooks import Hook
from fasttrain.hooks.hook import is_noop

RUNNER = SimpleNamespace(epoch=4, iter=9, max_epochs=5, max_iters=10)


def test_the_base_class_does_nothing_anywhere() -> None:
    assert Hook().get_triggered_stages() == []
    assert Hook.priority == "NORMAL"
    assert len(Hook.stages) == 22


class OnEveryIter(Hook):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def _after_iter(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append((args, kwargs))

    def before_run(self, runner: Any) -> None:
        self.calls.append("run")


def test_shared_methods_serve_all_modes() -> None:
    hook = OnEveryIter()
    stages = ["before_run", "after_train_iter", "after_val_iter", "after_test_iter"]
    assert hook.get_triggered_stages() == stages
    hook.after_val_iter("runner", 2, "data", "outputs")
    assert hook.calls == [
        (("runner",), {"batch_idx": 2, "data_batch": "data", "outputs": "outputs", "mode": "val"})
    ]


@pytest.mark.parametrize("what", ["before_epoch", "after_epoch", "before_iter", "after_iter"])
def test_each_stage_reaches_its_shared_method(what: str) -> None:
    seen = []

    class Shared(Hook):
        pass

    setattr(Shared, f"_{what}", lambda self, runner, mode, **kwargs: seen.append(mode))
    hook, (when, unit) = Shared(), what.split("_")
    for mode in ("train", "val", "test"):
        args = (0,) if unit == "iter" else ()
        getattr(hook, f"{when}_{mode}_{unit}")("runner", *args)
    assert seen == ["train", "val", "test"]
    assert len(hook.get_triggered_stages()) == 3


def test_methods_put_on_one_hook_count() -> None:
    hook = Hook()
    hook.before_run = lambda runner: None  # type: ignore[method-assign]
    hook._before_iter = lambda runner, **kwargs: None  # type: ignore[method-assign]
    assert not is_noop(hook, "before_run")
    assert not is_noop(hook, "before_test_iter")
    assert is_noop(hook, "after_run")
    assert not is_noop(object(), "before_run")


@pytest.mark.parametrize(
    ("n", "start", "due"),
    [(5, 0, True), (3, 0, False), (0, 0, False), (-1, 0, False), (2, 3, True)],
)
def test_every_n_epochs(n: int, start: int, due: bool) -> None:
    assert Hook().every_n_epochs(RUNNER, n, start) is due


@pytest.mark.parametrize(
    ("n", "start", "due"),
    [(5, 0, True), (3, 0, False), (0, 0, False), (4, 2, True), (2, 20, False)],
)
def test_every_n_train_iters(n: int, start: int, due: bool) -> None:
    assert Hook().every_n_train_iters(RUNNER, n, start) is due


def test_inner_iters_and_ends() -> None:
    hook = Hook()
    assert [hook.every_n_inner_iters(4, n) for n in (5, 3, 0)] == [True, False, False]
    assert hook.end_of_epoch([1, 2, 3], 2)
    assert not hook.end_of_epoch([1, 2, 3], 1)
    assert hook.is_last_train_epoch(RUNNER)
    assert hook.is_last_train_iter(RUNNER)
