"""When schedulers step, and what a runner may hold for them."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from fasttrain.hooks import ParamSchedulerHook
from fasttrain.optim import ReduceOnPlateauLR, _ParamScheduler


class Counter(_ParamScheduler):
    def __init__(self, by_epoch: bool, need_val_args: bool = False) -> None:
        self.by_epoch = by_epoch
        self.need_val_args = need_val_args
        self.steps: list[Any] = []

    def step(self, *args: Any) -> None:
        self.steps.append(args)


@pytest.mark.parametrize("several", [False, True])
def test_who_steps_when(several: bool) -> None:
    by_epoch, by_iter, plateau = Counter(True), Counter(False), Counter(True, True)
    group = [by_epoch, by_iter, plateau]
    schedulers = {"a": group[:1], "b": group[1:]} if several else group
    runner, hook = SimpleNamespace(param_schedulers=schedulers), ParamSchedulerHook()
    hook.after_train_iter(runner, 0)
    assert [len(s.steps) for s in group] == [0, 1, 0]
    hook.after_train_epoch(runner)
    assert [len(s.steps) for s in group] == [1, 1, 1]
    hook.after_val_epoch(runner, None)
    assert [len(s.steps) for s in group] == [1, 1, 1]
    hook.after_val_epoch(runner, {"acc": 1})
    assert plateau.steps == [(), ({"acc": 1},)]
    assert [len(s.steps) for s in group] == [1, 1, 2]


def test_foreign_schedulers_step_without_metrics() -> None:
    foreign = Mock(by_epoch=True, need_val_args=True)
    runner, hook = SimpleNamespace(param_schedulers=[foreign]), ParamSchedulerHook()
    hook.after_train_epoch(runner)
    hook.after_val_epoch(runner, {"acc": 1})
    foreign.step.assert_called_once_with()


def test_plateau_keeps_to_its_epochs() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ReduceOnPlateauLR(optimizer, monitor="loss", patience=0, begin=2, end=4)
    runner, hook = SimpleNamespace(param_schedulers=[scheduler]), ParamSchedulerHook()
    shown = []
    for _ in range(5):
        hook.after_train_epoch(runner)
        hook.after_val_epoch(runner, {"loss": 1.0})
        shown.append(optimizer.param_groups[0]["lr"])
    assert shown == [1.0, 1.0, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("nothing", [None, [], {}, {"type": "MultiStepLR", "milestones": [1]}])
def test_nothing_to_step(nothing: Any) -> None:
    runner = SimpleNamespace(param_schedulers=nothing)
    ParamSchedulerHook().after_val_epoch(runner, {"acc": 1})
    ParamSchedulerHook().after_train_epoch(runner)


def test_wrong_schedulers() -> None:
    hook = ParamSchedulerHook()
    with pytest.raises(TypeError, match="should be list of ParamScheduler or a dict containing"):
        hook.after_train_iter(SimpleNamespace(param_schedulers=3), 0)
    with pytest.raises(AssertionError, match=r"each value of runner\.param_schedulers"):
        hook.after_train_epoch(SimpleNamespace(param_schedulers={"a": Counter(True)}))
