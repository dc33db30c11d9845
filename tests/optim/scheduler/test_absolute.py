"""One cycle and cosine restarts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import ConstantLR, OneCycleLR
from fasttrain.optim.scheduler import CosineRestartLR
from fasttrain.optim.scheduler.param_scheduler import OneCycleParamScheduler

BASES = (0.1, 0.02)


def make_optimizer() -> torch.optim.Optimizer:
    groups = [{"params": nn.Linear(1, 1).parameters(), "lr": base} for base in BASES]
    return torch.optim.SGD(groups, lr=0.5)


def run(optimizer: torch.optim.Optimizer, scheduler: Any, num_steps: int) -> list[list[float]]:
    shown = []
    for step in range(num_steps):
        shown.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if step + 1 < num_steps:
            scheduler.step()
    return shown


@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_agrees_with_torch(anneal_strategy: str, three_phase: bool) -> None:
    kwargs: dict[str, Any] = {
        "total_steps": 13,
        "pct_start": 0.4,
        "anneal_strategy": anneal_strategy,
        "div_factor": 10.0,
        "final_div_factor": 100.0,
        "three_phase": three_phase,
    }
    ours, reference = make_optimizer(), make_optimizer()
    scheduler = OneCycleLR(ours, eta_max=[1.0, 2.0], **kwargs)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        reference, max_lr=[1.0, 2.0], cycle_momentum=False, **kwargs
    )
    for expected, values in zip(run(reference, theirs, 13), run(ours, scheduler, 13), strict=True):
        assert values == pytest.approx(expected)


def test_one_cycle_notes_its_ends_in_the_groups() -> None:
    optimizer = make_optimizer()
    scheduler = OneCycleLR(optimizer, eta_max=1.0, end=10, begin=2)
    group = optimizer.param_groups[1]
    assert (group["initial_lr"], group["max_lr"], group["min_lr"]) == (1 / 25, 1.0, 1 / 25 / 1e4)
    assert scheduler.total_steps == 8
    assert group["lr"] == 0.02  # it has not begun


def test_one_cycle_stays_at_its_end_for_one_step_and_then_raises() -> None:
    optimizer = make_optimizer()
    scheduler = OneCycleLR(optimizer, eta_max=1.0, total_steps=4, anneal_strategy="linear")
    values = [lr for lr, _ in run(optimizer, scheduler, 5)]
    assert values[3:] == pytest.approx([1 / 25e4, 1 / 25e4])
    with pytest.raises(ValueError, match=r"Tried to step 6 times.* total steps is 4"):
        scheduler.step()


def test_one_cycle_of_short_phases() -> None:
    optimizer = make_optimizer()
    scheduler = OneCycleLR(optimizer, eta_max=1.0, total_steps=2, pct_start=0.5, three_phase=True)
    assert all(math.isfinite(lr) for values in run(optimizer, scheduler, 2) for lr in values)


def test_one_cycle_takes_a_state_with_the_function_in_it() -> None:
    scheduler = OneCycleLR(make_optimizer(), eta_max=1.0, total_steps=4, anneal_strategy="linear")
    scheduler.load_state_dict({"anneal_func": print, "last_step": 2})
    assert scheduler.last_step == 2
    assert scheduler.anneal_func(0.0, 4.0, 0.25) == 1.0
    assert OneCycleParamScheduler._annealing_linear(0.0, 4.0, 0.25) == 1.0
    assert OneCycleParamScheduler._annealing_cos(0.0, 4.0, 0.5) == 2.0


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"total_steps": 0}, "Expected positive integer total_steps, but got 0"),
        ({"total_steps": 1.5}, "Expected positive integer total_steps, but got 1.5"),
        ({"pct_start": 2}, "Expected float between 0 and 1 pct_start, but got 2"),
        ({"pct_start": 1}, "Expected float between 0 and 1 pct_start, but got 1"),
        ({"pct_start": "a"}, "Expected float between 0 and 1 pct_start, but got a"),
        ({"anneal_strategy": "up"}, 'must by one of "cos" or "linear", instead got up'),
        ({"eta_max": [1.0]}, "expected 2 values for max_lr, got 1"),
    ],
)
def test_one_cycle_refuses(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        OneCycleLR(make_optimizer(), **{"eta_max": 1.0, **kwargs})


@pytest.mark.parametrize("floor", [{"eta_min": 0.01}, {"eta_min_ratio": 0.1}])
def test_cosine_restarts(floor: dict[str, float]) -> None:
    periods, weights = [2, 4, 3], [1, 0.5, 0.8]
    optimizer = make_optimizer()
    scheduler = CosineRestartLR(optimizer, periods=periods, restart_weights=weights, **floor)
    shown = run(optimizer, scheduler, 12)
    step = 0
    for period, weight in zip(periods, weights, strict=True):
        for position in range(period):
            for base, value in zip(BASES, shown[step], strict=True):
                low = floor.get("eta_min", base * floor.get("eta_min_ratio", 0.0))
                share = (1 + math.cos(math.pi * position / period)) / 2
                assert value == pytest.approx(low + (base * weight - low) * share)
            step += 1
    assert shown[step:] == [shown[step - 1]] * 3  # past the last period nothing moves


def test_cosine_restart_chains_within_a_period() -> None:
    optimizer = make_optimizer()
    restart = CosineRestartLR(optimizer, periods=[4, 4], restart_weights=[1, 1], eta_min=0.0)
    constant = ConstantLR(optimizer, factor=0.5)
    values = []
    for _ in range(6):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        restart.step()
        constant.step()
    shape = [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    halved = [0.05 * share for share in shape]
    assert values == pytest.approx(halved + [0.1 * shape[0], 0.1 * shape[1]])


def test_cosine_restart_refuses() -> None:
    optimizer = make_optimizer()
    with pytest.raises(AssertionError, match="exactly one of eta_min and eta_min_ratio"):
        CosineRestartLR(optimizer, periods=[3])
    with pytest.raises(AssertionError, match="exactly one of eta_min and eta_min_ratio"):
        CosineRestartLR(optimizer, periods=[3], eta_min=0.1, eta_min_ratio=0.1)
    with pytest.raises(AssertionError, match="should have the same length"):
        CosineRestartLR(optimizer, periods=[3, 4], eta_min=0.1)


def test_position_in_periods() -> None:
    find = CosineRestartLR.get_position_from_periods
    assert [find(step, [2, 5]) for step in range(6)] == [0, 0, 1, 1, 1, None]
