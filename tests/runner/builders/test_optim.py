"""Building optimizer wrappers and schedulers, and scaling learning rates."""

from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import MultiStepLR, OptimWrapper, OptimWrapperDict
from fasttrain.runner.builders import (
    build_optim_wrapper,
    build_schedulers,
    scale_lr,
    schedulers_of_config,
)


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(1, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_wrapper_of_one_optimizer() -> None:
    model, optimizer = model_and_optimizer()
    wrapper = OptimWrapper(optimizer)
    assert build_optim_wrapper(model, wrapper) is wrapper
    given = {"optimizer": optimizer, "accumulative_counts": 2}
    built = build_optim_wrapper(model, given)
    assert built.optimizer is optimizer
    assert built._accumulative_counts == 2
    assert "type" not in given
    built = build_optim_wrapper(model, {"optimizer": {"type": "SGD", "lr": 0.3}})
    assert built.param_groups[0]["lr"] == 0.3


def test_wrappers_of_several_optimizers() -> None:
    model, optimizer = model_and_optimizer()
    built = build_optim_wrapper(model, {"a": OptimWrapper(optimizer), "b": OptimWrapper(optimizer)})
    assert isinstance(built, OptimWrapperDict)
    assert list(built.keys()) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (3, TypeError, "optimizer wrapper should be an OptimWrapper object or dict, but got 3"),
        ({"a": {}}, ValueError, "each item mush be an optimizer object when"),
        ({"optimizer": None}, ValueError, "each item mush be an optimizer object when"),
    ],
)
def test_wrong_wrappers(given: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        build_optim_wrapper(nn.Linear(1, 1), given)


def build(given: Any, wrapper: OptimWrapper) -> list:
    return schedulers_of_config(given, wrapper, epoch_length=4, max_epochs=3, max_iters=12)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "MultiStepLR", "milestones": [1]}, (0, 3, True)),
        ({"type": "LinearLR", "by_epoch": False}, (0, 12, False)),
        ({"type": "LinearLR", "end": 2, "convert_to_iter_based": True}, (0, 8, False)),
        ({"type": "CosineAnnealingLR", "begin": 1}, (1, 3, True)),
    ],
)
def test_schedulers_end_with_the_training(given: dict, expected: tuple) -> None:
    wrapper, same = OptimWrapper(model_and_optimizer()[1]), dict(given)
    (scheduler,) = build(given, wrapper)
    assert (scheduler.begin, scheduler.end, scheduler.by_epoch) == expected
    assert given == same


def test_one_or_many_schedulers() -> None:
    wrapper = OptimWrapper(model_and_optimizer()[1])
    built = MultiStepLR(wrapper, milestones=[1])
    assert build(built, wrapper) == [built]
    assert build((built, built), wrapper) == [built, built]
    assert build([], wrapper) == []
    with pytest.raises(TypeError, match="scheduler should be a _ParamScheduler object or dict"):
        build([3], wrapper)


def test_schedulers_of_several_optimizers() -> None:
    wrappers = OptimWrapperDict(
        a=OptimWrapper(model_and_optimizer()[1]), b=OptimWrapper(model_and_optimizer()[1])
    )
    step = {"type": "MultiStepLR", "milestones": [1]}
    for given in (step, [step], {"a": step, "b": [step]}):
        built = build_schedulers(given, wrappers, build)
        assert {name: len(group) for name, group in built.items()} == {"a": 1, "b": 1}
    with pytest.raises(KeyError, match="no schedulers for the optimizer 'b'"):
        build_schedulers({"a": step}, wrappers, build)


@pytest.mark.parametrize(
    ("auto_scale_lr", "expected"),
    [
        (None, 0.1),
        ({"base_batch_size": 16}, 0.1),
        ({"base_batch_size": 16, "enable": False}, 0.1),
        ({"base_batch_size": 16, "enable": True}, 0.025),
    ],
)
def test_scale_lr(auto_scale_lr: Any, expected: float) -> None:
    wrapper = OptimWrapper(model_and_optimizer()[1])
    scale_lr(wrapper, auto_scale_lr, lambda: 4)
    assert wrapper.param_groups[0]["lr"] == pytest.approx(expected)
    several = OptimWrapperDict(a=OptimWrapper(model_and_optimizer()[1]))
    scale_lr(several, auto_scale_lr, lambda: 4)
    assert several["a"].param_groups[0]["lr"] == pytest.approx(expected)


def test_scale_lr_errors() -> None:
    with pytest.raises(AssertionError, match="Lack of `base_batch_size` in `auto_scale_lr`"):
        scale_lr(OptimWrapper(model_and_optimizer()[1]), {"enable": True}, lambda: 4)
    with pytest.raises(AssertionError, match="should be called after building OptimWrapper"):
        scale_lr(model_and_optimizer()[1], {"enable": True, "base_batch_size": 1}, lambda: 4)
