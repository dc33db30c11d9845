"""Schedules as pure functions of the step, and the rule by which several of them chain.

Step 0 is the first step that a schedule acts on. A *shape* gives the share of the base value at a
step; a *ratio* gives the factor from the step before, for shapes that only multiply. Chained
schedules multiply: each moves the current value by the change of its own shape.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence


def step_ratio(step: int, step_size: int, gamma: float) -> float:
    """`gamma` every `step_size` steps."""
    return gamma if step and step % step_size == 0 else 1.0


def multi_step_ratio(step: int, milestones: Mapping[int, int], gamma: float) -> float:
    """`gamma` at each milestone, as often as it is listed (`milestones` maps to how often)."""
    times = milestones.get(step, 0)
    return float(gamma**times) if times else 1.0


def exponential_ratio(step: int, gamma: float) -> float:
    """`gamma` at every step."""
    return gamma if step else 1.0


def constant_shape(step: int, num_steps: int, factor: float) -> float:
    """`factor` for the first `num_steps` steps (at least one), then 1."""
    return factor if step < num_steps or step == 0 else 1.0


def cosine_shape(step: int, period: int) -> float:
    """(1 + cos(pi step / period)) / 2, falling over `period` steps and rising over the next."""
    return (1 + math.cos(math.pi * step / period)) / 2


def linear_shape(step: int, num_steps: int, start: float, end: float) -> float:
    """A straight line from `start` to `end` over `num_steps` steps, then level."""
    share = min(step, num_steps) / num_steps if num_steps else 0.0
    return start + (end - start) * share


def poly_shape(step: int, num_steps: int, power: float) -> float:
    """(1 - step / num_steps) ** power, then zero; 1 at step 0 in any case."""
    return float((1 - step / num_steps) ** power) if step < num_steps else float(step == 0)


def chain(
    values: Sequence[float],
    base_values: Sequence[float],
    floors: Sequence[float] | None,
    before: float,
    now: float,
) -> list[float]:
    """Move the current `values` by the change of a shape from `before` to `now`.

    From a shape of zero there is no ratio; the change is then taken from the base values.

    Args:
        values: one for each parameter group, as are all others.
        base_values: what the shape is a share of, above the floor.
        floors: what remains at a shape of zero; zero when None.
        before: the shape at the last step, 1 before the first one.
        now: the shape at this step.
    """
    if before == now:
        return list(values)
    if before == 0:
        bottoms = floors or [0.0] * len(values)
        trios = zip(values, base_values, bottoms, strict=True)
        return [value + (base - floor) * now for value, base, floor in trios]
    ratio = now / before
    if floors is None:
        return [value * ratio for value in values]
    return [floor + (v - floor) * ratio for v, floor in zip(values, floors, strict=True)]


def ease_cosine(start: float, end: float, share: float) -> float:
    """From `start` (`share` 0) to `end` (`share` 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def ease_linear(start: float, end: float, share: float) -> float:
    """From `start` (`share` 0) to `end` (`share` 1) along a straight line."""
    return start + (end - start) * share


def phase_at(step: int, phase_ends: Sequence[float]) -> tuple[int, float]:
    """The phase that `step` is in, and the share of it that has passed.

    Args:
        step: past the last end, the last phase has passed entirely.
        phase_ends: last step of each phase, rising; a phase starts where the one before ends.
    """
    index = min(bisect.bisect_left(phase_ends, step), len(phase_ends) - 1)
    start = phase_ends[index - 1] if index else 0.0
    length = phase_ends[index] - start
    return index, min((step - start) / length, 1.0) if length else 1.0


def period_at(step: int, cumulative_periods: Sequence[int]) -> int | None:
    """Index of the period that `step` lies in, None past the last one."""
    index = bisect.bisect_right(cumulative_periods, step)
    return index if index < len(cumulative_periods) else None


def is_better(value: float, best: float, *, rule: str, threshold: float, relative: bool) -> bool:
    """Whether `value` beats `best` by more than `threshold`, for the rule `less` or `greater`."""
    sign = -1.0 if rule == "less" else 1.0
    bar = best * (1 + sign * threshold) if relative else best + sign * threshold
    return value < bar if rule == "less" else value > bar
