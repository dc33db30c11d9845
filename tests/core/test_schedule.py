"""Schedules match their closed forms, and chaining reproduces the product of several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest

from fasttrain.core import schedule


@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_ratios_multiply_up_to_powers(gamma: float) -> None:
    stepped = milestones = exponential = 1.0
    counter = Counter([2, 5, 5])
    for step in range(12):
        stepped *= schedule.step_ratio(step, 3, gamma)
        milestones *= schedule.multi_step_ratio(step, counter, gamma)
        exponential *= schedule.exponential_ratio(step, gamma)
        assert stepped == pytest.approx(gamma ** (step // 3))
        assert milestones == pytest.approx(gamma ** sum(m <= step for m in (2, 5, 5)))
        assert exponential == pytest.approx(gamma**step)


def test_constant_shape() -> None:
    assert [schedule.constant_shape(step, 3, 0.2) for step in range(5)] == [0.2, 0.2, 0.2, 1, 1]
    assert schedule.constant_shape(0, 0, 0.2) == 0.2


def test_cosine_shape() -> None:
    shape = [schedule.cosine_shape(step, 4) for step in range(9)]
    assert shape[:5] == pytest.approx([1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0])
    assert shape[4:] == pytest.approx(shape[4::-1])


def test_linear_shape() -> None:
    shape = [schedule.linear_shape(step, 4, 0.2, 1.0) for step in range(6)]
    assert shape == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert schedule.linear_shape(0, 0, 0.2, 1.0) == 0.2


def test_poly_shape() -> None:
    shape = [schedule.poly_shape(step, 4, 2.0) for step in range(6)]
    assert shape == pytest.approx([1, 0.5625, 0.25, 0.0625, 0, 0])
    assert schedule.poly_shape(0, 0, 2.0) == 1.0


SHAPES: list[Callable[[int], float]] = [
    lambda step: schedule.cosine_shape(step, 5),
    lambda step: schedule.linear_shape(step, 7, 0.0, 0.5),
    lambda step: schedule.poly_shape(step, 9, 0.9),
    lambda step: schedule.constant_shape(step, 4, 0.0),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("floor", [0.0, 0.02])
def test_chain_follows_the_closed_form(shape: Callable[[int], float], floor: float) -> None:
    base = value = 0.1
    before = 1.0
    for step in range(20):
        value = schedule.chain([value], [base], [floor], before, shape(step))[0]
        before = shape(step)
        assert value == pytest.approx(floor + (base - floor) * before, abs=1e-15)


def test_chained_schedules_multiply() -> None:
    value = 0.1
    before = [1.0, 1.0]
    for step in range(5):
        now = [schedule.linear_shape(step, 5, 0.2, 1.0), schedule.cosine_shape(step, 8)]
        for index in range(2):
            value = schedule.chain([value], [0.1], None, before[index], now[index])[0]
        before = now
        assert value == pytest.approx(0.1 * now[0] * now[1])


@pytest.mark.parametrize("ease", [schedule.ease_cosine, schedule.ease_linear])
def test_eases_join_their_ends(ease: Callable[[float, float, float], float]) -> None:
    assert ease(0.2, 3.0, 0.0) == pytest.approx(0.2)
    assert ease(0.2, 3.0, 0.5) == pytest.approx(1.6)
    assert ease(0.2, 3.0, 1.0) == pytest.approx(3.0)


def test_phase_at() -> None:
    ends = [2.0, 5.0, 9]
    phases = [schedule.phase_at(step, ends) for step in range(11)]
    assert [index for index, _ in phases] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert [share for _, share in phases] == pytest.approx(
        [0, 1 / 2, 1, 1 / 3, 2 / 3, 1, 1 / 4, 2 / 4, 3 / 4, 1, 1]
    )


def test_phase_without_length_has_passed() -> None:
    assert schedule.phase_at(1, [0.0, 0.0]) == (1, 1.0)


def test_period_at() -> None:
    assert [schedule.period_at(step, [2, 5]) for step in range(7)] == [0, 0, 1, 1, 1, None, None]


@pytest.mark.parametrize(
    ("value", "best", "rule", "relative", "expected"),
    [
        (0.89, 1.0, "less", True, True),
        (0.91, 1.0, "less", True, False),
        (-0.95, -1.0, "less", True, True),
        (-0.95, -1.0, "less", False, False),
        (0.85, 1.0, "less", False, True),
        (1.11, 1.0, "greater", True, True),
        (1.09, 1.0, "greater", True, False),
        (1.05, 1.0, "greater", False, False),
        (1.15, 1.0, "greater", False, True),
    ],
)
def test_is_better(value: float, best: float, rule: str, relative: bool, expected: bool) -> None:
    better = schedule.is_better(value, best, rule=rule, threshold=0.1, relative=relative)
    assert better is expected
