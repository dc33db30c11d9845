"""What all schedulers share: when they act, what they remember, how they warn."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import OptimWrapper, StepLR, StepParamScheduler
from fasttrain.optim.scheduler import lr_scheduler, momentum_scheduler
from fasttrain.optim.scheduler.param_scheduler import INF, _ParamScheduler
from fasttrain.registry import PARAM_SCHEDULERS
from support import check_save_and_resume


def make_optimizer() -> torch.optim.Optimizer:
    torch.manual_seed(0)
    groups = [
        {"params": nn.Linear(1, 1).parameters(), "lr": 0.1},
        {"params": nn.Linear(1, 1).parameters(), "lr": 0.02},
    ]
    return torch.optim.SGD(groups, lr=0.5, momentum=0.9)


def test_acts_between_begin_and_end() -> None:
    optimizer = make_optimizer()
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5, begin=2, end=4)
    shown = []
    for _ in range(6):
        shown.append((optimizer.param_groups[0]["lr"], scheduler.last_step))
        optimizer.step()
        scheduler.step()
    assert shown == [(0.1, -1), (0.1, -1), (0.1, 0), (0.05, 1), (0.05, 1), (0.05, 1)]


def test_wrapper_shows_base_settings_as_a_group() -> None:
    wrapper = OptimWrapper(make_optimizer())
    scheduler = StepLR(wrapper, step_size=1, gamma=0.5)
    wrapper.step()
    scheduler.step()
    assert scheduler.get_last_value() == [0.05, 0.01, 0.25]
    assert wrapper.get_lr() == {"base_lr": [0.25], "lr": [0.05, 0.01]}


def test_any_entry_of_a_group_can_be_scheduled() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, weight_decay=0.4)
    scheduler = StepParamScheduler(optimizer, "weight_decay", step_size=1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    group = optimizer.param_groups[0]
    assert (group["weight_decay"], group["initial_weight_decay"], group["lr"]) == (0.2, 0.4, 0.1)


def test_tensor_value_is_changed_in_place() -> None:
    lr = torch.tensor(0.5)
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == 0.25
    assert float(optimizer.param_groups[0]["initial_lr"]) == 0.5


def test_continues_from_last_step() -> None:
    optimizer = make_optimizer()
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scheduler = StepLR(optimizer, step_size=3, gamma=0.5, last_step=4)
    assert (scheduler.last_step, optimizer.param_groups[0]["lr"]) == (5, 0.1)
    optimizer.step()
    scheduler.step()
    assert (scheduler.last_step, optimizer.param_groups[0]["lr"]) == (6, 0.05)


def test_state_is_all_but_the_optimizer() -> None:
    scheduler = StepLR(make_optimizer(), step_size=3, begin=1, by_epoch=False)
    assert scheduler.state_dict() == {
        "step_size": 3,
        "gamma": 0.1,
        "param_name": "lr",
        "begin": 1,
        "end": INF,
        "by_epoch": False,
        "base_values": [0.1, 0.02],
        "last_step": -1,
        "_global_step": 0,
        "verbose": False,
        "_last_value": [0.1, 0.02],
    }


LR: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "end": 5},
    "CosineAnnealingLR": {"T_max": 4, "eta_min_ratio": 0.1},
    "CosineRestartLR": {"periods": [2, 5], "restart_weights": [1, 0.5], "eta_min": 0.001},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"end": 7},
    "MultiStepLR": {"milestones": [2, 2, 6]},
    "OneCycleLR": {"eta_max": 1.0, "total_steps": 12},
    "PolyLR": {"power": 0.9, "end": 8},
    "StepLR": {"step_size": 3},
}


@pytest.mark.parametrize("name", LR)
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_scheduler_resumes(name: str, wrapped: bool) -> None:
    def make() -> Any:
        optimizer: Any = make_optimizer()
        if wrapped:
            optimizer = OptimWrapper(optimizer)
        return optimizer, getattr(lr_scheduler, name)(optimizer, **LR[name])

    def advance(part: Any, step: int) -> Any:
        part[0].step()
        part[1].step()
        return part[1].get_last_value()

    def load(part: Any, saved: Any) -> None:
        part[0].load_state_dict(saved[0])
        part[1].load_state_dict(saved[1])

    check_save_and_resume(
        make, advance, state=lambda part: [p.state_dict() for p in part], load=load
    )


@pytest.mark.parametrize("name", LR)
def test_state_is_plain_data(name: str, tmp_path: Any) -> None:
    scheduler = getattr(lr_scheduler, name)(make_optimizer(), **LR[name])
    torch.save(scheduler.state_dict(), tmp_path / "state.pth")
    loaded = torch.load(tmp_path / "state.pth", weights_only=True)
    assert loaded == scheduler.state_dict()


@pytest.mark.parametrize("name", LR)
def test_epochs_convert_to_iterations(name: str) -> None:
    """At every epoch's end the converted scheduler is where the original one is."""
    epoch_length = 4
    kwargs = LR[name]
    cls = getattr(lr_scheduler, name)
    optimizer = make_optimizer()
    scheduler = cls.build_iter_from_epoch(optimizer, epoch_length=epoch_length, **kwargs)
    assert scheduler.by_epoch is False
    assert scheduler.end == (kwargs["end"] * epoch_length if "end" in kwargs else INF)
    counted = {key: kwargs[key] for key in ("T_max", "total_steps", "step_size") if key in kwargs}
    for key, value in counted.items():
        assert getattr(scheduler, key) == value * epoch_length
    if "milestones" in kwargs:
        assert scheduler.milestones == {8: 2, 24: 1}
    if "periods" in kwargs:
        assert scheduler.periods == [8, 20]
        assert kwargs["periods"] == [2, 5]


def test_conversion_needs_epochs_and_their_length() -> None:
    optimizer = make_optimizer()
    with pytest.raises(AssertionError, match="Only epoch-based kwargs whose `by_epoch=True`"):
        StepLR.build_iter_from_epoch(optimizer, step_size=1, by_epoch=False, epoch_length=3)
    for length in (None, 0, -1):
        with pytest.raises(AssertionError, match=f"must be a positive integer, but got {length}"):
            StepLR.build_iter_from_epoch(optimizer, step_size=1, epoch_length=length)


def test_bad_arguments() -> None:
    optimizer = make_optimizer()
    with pytest.raises(TypeError, match="``optimizer`` should be an Optimizer,but got Linear"):
        StepLR(nn.Linear(1, 1), step_size=1)
    with pytest.raises(ValueError, match="larger than begin, but got begin=5, end=3"):
        StepLR(optimizer, step_size=1, begin=5, end=3)
    with pytest.raises(KeyError, match=r"'initial_lr' is not specified in param_groups\[0\]"):
        StepLR(optimizer, step_size=1, last_step=3)
    for last_step in (-2, 1.5):
        with pytest.raises(AssertionError, match=f"an int >= -1, but got {last_step}"):
            StepLR(optimizer, step_size=1, last_step=last_step)
    with pytest.raises(KeyError, match="beta"):
        StepParamScheduler(optimizer, "beta", step_size=1)
    with pytest.raises(NotImplementedError):
        _ParamScheduler(optimizer, "lr")


def test_warns_when_stepped_before_the_optimizer() -> None:
    for optimizer in (make_optimizer(), OptimWrapper(make_optimizer())):
        scheduler = StepLR(optimizer, step_size=1)
        with pytest.warns(UserWarning, match=r"`scheduler.step\(\)` before `optimizer.step\(\)`"):
            scheduler.step()
        scheduler.step()  # said once


def test_does_not_warn_in_the_right_order() -> None:
    optimizer = make_optimizer()
    schedulers = [StepLR(optimizer, step_size=1), StepLR(optimizer, step_size=2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
    assert optimizer._global_step == 1  # type: ignore[attr-defined]


def test_warns_when_step_was_overridden() -> None:
    optimizer = make_optimizer()
    scheduler = StepLR(optimizer, step_size=1)
    optimizer.step = lambda: None  # type: ignore[method-assign,assignment]
    with pytest.warns(UserWarning, match="has been overridden after"):
        scheduler.step()


def test_counts_a_step_that_is_no_method() -> None:
    optimizer = make_optimizer()
    optimizer.step = partial(optimizer.step)  # type: ignore[method-assign]
    scheduler = StepLR(optimizer, step_size=1)
    optimizer.step()
    scheduler.step()
    assert scheduler.last_step == 1


def test_verbose_says_each_new_value(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "fasttrain.optim.scheduler.base.print_log", lambda text, logger: said.append(text)
    )
    StepLR(make_optimizer(), step_size=1, verbose=True)
    assert said == [
        "Adjusting parameter value of group 0 to 1.0000e-01.",
        "Adjusting parameter value of group 1 to 2.0000e-02.",
    ]


def test_all_are_registered() -> None:
    for module in (lr_scheduler, momentum_scheduler):
        for name, value in vars(module).items():
            if name.endswith(("LR", "Momentum", "ParamScheduler")) and isinstance(value, type):
                assert PARAM_SCHEDULERS.get(name) is value
    built = PARAM_SCHEDULERS.build(
        {
            "type": "LinearLR",
            "optimizer": make_optimizer(),
            "end": 3,
            "convert_to_iter_based": True,
            "epoch_length": 5,
        }
    )
    assert (built.total_iters, built.by_epoch) == (14, False)
