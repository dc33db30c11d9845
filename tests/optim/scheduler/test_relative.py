"""Relative schedulers follow their closed forms, alone and chained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import scheduler as schedulers

Form = Callable[[float, int], float]
BASES = (0.1, 0.02)


def cosine(floor: Callable[[float], float], period: int) -> Form:
    def form(base: float, step: int) -> float:
        low = floor(base)
        return low + (base - low) * (1 + math.cos(math.pi * step / period)) / 2

    return form


CASES: list[tuple[str, dict[str, Any], Form]] = [
    ("Step", {"step_size": 3, "gamma": 0.5}, lambda base, t: base * 0.5 ** (t // 3)),
    (
        "MultiStep",
        {"milestones": [2, 5, 5], "gamma": 0.5},
        lambda base, t: base * 0.5 ** sum(t >= m for m in (2, 5, 5)),
    ),
    (
        "Constant",
        {"factor": 0.25, "end": 5},
        lambda base, t: base * (0.25 if t < 4 else 1),
    ),
    ("Constant", {"factor": 0.0, "end": 4}, lambda base, t: base * (t >= 3)),
    ("Exponential", {"gamma": 0.9}, lambda base, t: base * 0.9**t),
    ("CosineAnnealing", {"T_max": 4}, cosine(lambda base: 0.0, 4)),
    ("CosineAnnealing", {"T_max": 4, "eta_min": 0.01}, cosine(lambda base: 0.01, 4)),
    ("CosineAnnealing", {"T_max": 3, "eta_min_ratio": 0.2}, cosine(lambda base: base * 0.2, 3)),
    (
        "CosineAnnealing",
        {"end": 5},
        lambda base, t: cosine(lambda _: 0.0, 5)(base, min(t, 4)),
    ),
    (
        "Linear",
        {"start_factor": 0.1, "end_factor": 0.6, "end": 6},
        lambda base, t: base * (0.1 + 0.5 * min(t, 5) / 5),
    ),
    ("Linear", {"start_factor": 0.0, "end": 6}, lambda base, t: base * min(t, 5) / 5),
    (
        "Poly",
        {"power": 2.0, "eta_min": 0.01, "end": 8},
        lambda base, t: 0.01 + (base - 0.01) * (1 - min(t, 7) / 7) ** 2,
    ),
]


def make_optimizer() -> torch.optim.Optimizer:
    groups = [{"params": nn.Linear(1, 1).parameters(), "lr": base} for base in BASES]
    return torch.optim.SGD(groups, lr=0.5)


def run(optimizer: torch.optim.Optimizer, parts: list[Any], num_steps: int) -> list[list[float]]:
    shown = []
    for _ in range(num_steps):
        shown.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        for part in parts:
            part.step()
    return shown


@pytest.mark.parametrize(("name", "kwargs", "form"), CASES)
@pytest.mark.parametrize("begin", [0, 3])
def test_follows_the_closed_form(name: str, kwargs: dict[str, Any], form: Form, begin: int) -> None:
    optimizer = make_optimizer()
    kwargs = {**kwargs, "begin": begin}
    if "end" in kwargs:
        kwargs["end"] += begin
    scheduler = getattr(schedulers, f"{name}LR")(optimizer, **kwargs)
    for step, values in enumerate(run(optimizer, [scheduler], 14)):
        expected = [form(base, step - begin) if step >= begin else base for base in BASES]
        assert values == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", ["Step", "MultiStep", "Exponential"])
def test_a_value_is_exact_to_the_last_bit(name: str) -> None:
    """Factors are multiplied one by one, as a user would."""
    optimizer = make_optimizer()
    kwargs = {"Step": {"step_size": 1}, "MultiStep": {"milestones": [1, 2]}, "Exponential": {}}
    scheduler = getattr(schedulers, f"{name}LR")(optimizer, gamma=0.1, **kwargs[name])
    values = run(optimizer, [scheduler], 3)
    assert [value[0] for value in values] == [0.1, 0.1 * 0.1, 0.1 * 0.1 * 0.1]


def test_warm_up_then_cosine() -> None:
    optimizer = make_optimizer()
    parts = [
        schedulers.LinearLR(optimizer, start_factor=0.1, begin=0, end=4),
        schedulers.CosineAnnealingLR(optimizer, T_max=6, begin=4, end=10),
    ]
    for step, values in enumerate(run(optimizer, parts, 10)):
        share = 0.1 + 0.9 * step / 3 if step < 4 else cosine(lambda _: 0.0, 6)(1.0, step - 4)
        assert values == pytest.approx([base * share for base in BASES], abs=1e-15)


def test_overlapping_schedulers_multiply() -> None:
    optimizer = make_optimizer()
    parts = [
        schedulers.LinearLR(optimizer, start_factor=0.1, end=6),
        schedulers.ExponentialLR(optimizer, gamma=0.9),
        schedulers.MultiStepLR(optimizer, milestones=[4], gamma=0.5),
    ]
    for step, values in enumerate(run(optimizer, parts, 9)):
        share = (0.1 + 0.9 * min(step, 5) / 5) * 0.9**step * (0.5 if step >= 4 else 1)
        assert values == pytest.approx([base * share for base in BASES])


def test_a_change_from_outside_is_kept() -> None:
    optimizer = make_optimizer()
    scheduler = schedulers.ExponentialLR(optimizer, gamma=0.5)
    optimizer.param_groups[0]["lr"] = 8.0
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 4.0


TORCH = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}, {}),
    ("MultiStepLR", {"milestones": [2, 5]}, {}),
    ("ExponentialLR", {"gamma": 0.8}, {}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}, {}),
    ("LinearLR", {"start_factor": 0.2}, {"total_iters": 6}),
    ("ConstantLR", {"factor": 0.5}, {"total_iters": 6}),
]


@pytest.mark.parametrize(("name", "kwargs", "theirs"), TORCH)
def test_agrees_with_torch(name: str, kwargs: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours, reference = make_optimizer(), make_optimizer()
    end = {"end": theirs["total_iters"] + 1} if theirs else {}
    scheduler = getattr(schedulers, name)(ours, **kwargs, **end)
    torch_scheduler = getattr(torch.optim.lr_scheduler, name)(reference, **kwargs, **theirs)
    for expected, values in zip(
        run(reference, [torch_scheduler], 12), run(ours, [scheduler], 12), strict=True
    ):
        assert values == pytest.approx(expected)


def test_bad_arguments() -> None:
    optimizer = make_optimizer()
    with pytest.raises(ValueError, match="step_size must be >= 1, got 0"):
        schedulers.StepLR(optimizer, step_size=0)
    for factor in (-0.1, 1.1):
        with pytest.raises(ValueError, match="Constant multiplicative factor should between 0"):
            schedulers.ConstantLR(optimizer, factor=factor)
        with pytest.raises(ValueError, match="Starting multiplicative factor should between 0"):
            schedulers.LinearLR(optimizer, start_factor=factor)
        with pytest.raises(ValueError, match="Ending multiplicative factor should between 0"):
            schedulers.LinearLR(optimizer, end_factor=factor)
    with pytest.raises(AssertionError, match="Either `eta_min` or `eta_min_ratio"):
        schedulers.CosineAnnealingLR(optimizer, T_max=2, eta_min=0.1, eta_min_ratio=0.1)
