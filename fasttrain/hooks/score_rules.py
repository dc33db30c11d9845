"""Which of two scores is better, and what a metric's name tells of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

RULES: dict[str, Callable[[Any, Any], bool]] = {
    "greater": lambda x, y: x > y,
    "less": lambda x, y: x < y,
}
GREATER_KEYS = [
    "acc", "top", "AR@", "auc", "precision", "mAP", "mDice", "mIoU", "mAcc", "aAcc",
]  # fmt: skip
LESS_KEYS = ["loss"]


def infer_rule(metric: str, greater: Sequence[str], less: Sequence[str]) -> str | None:
    """The rule of a metric: by its whole name first, then by a part of it; None when unknown."""
    lowered = metric.lower()
    rules = {
        "greater": [key.lower() for key in greater],
        "less": [key.lower() for key in less],
    }
    for rule, keys in rules.items():
        if lowered in keys:
            return rule
    for rule, keys in rules.items():
        if any(key in lowered for key in keys):
            return rule
    return None
