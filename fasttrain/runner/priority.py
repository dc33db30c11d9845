"""Priorities of hooks: names for the numbers 0 (first) to 100 (last)."""

from __future__ import annotations

from enum import Enum


class Priority(Enum):
    """Named hook priorities; hooks with a smaller value run earlier."""

    HIGHEST = 0
    VERY_HIGH = 10
    HIGH = 30
    ABOVE_NORMAL = 40
    NORMAL = 50
    BELOW_NORMAL = 60
    LOW = 70
    VERY_LOW = 90
    LOWEST = 100


def get_priority(priority: int | str | Priority) -> int:
    """Turn a number, a `Priority` or its name (in any case) into the number.

    Raises:
        ValueError: a number outside 0 to 100.
        KeyError: an unknown name.
        TypeError: anything else.
    """
    if isinstance(priority, Priority):
        return priority.value
    if isinstance(priority, int):
        if not 0 <= priority <= 100:
            raise ValueError(f"priority must be between 0 and 100, got {priority}")
        return priority
    if isinstance(priority, str):
        try:
            return Priority[priority.upper()].value
        except KeyError as e:
            names = ", ".join(Priority.__members__)
            raise KeyError(f"unknown priority {priority!r}; expected one of {names}") from e
    raise TypeError(f"priority must be an integer or Priority enum value, got {priority!r}")
