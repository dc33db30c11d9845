"""Which metrics choose the best checkpoint, and by which rule: arguments checked and settled."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fasttrain.hooks.score_rules import RULES, infer_rule

_ILLEGAL_IN_NAMES = re.compile(r'[:*?"<>|/\\]' if os.name == "nt" else "/")


def checked_metrics(save_best: Any, rule: Any) -> tuple[list[str] | None, list[str | None]]:
    """The metrics as a list and the rule of each; `(None, [])` when no best one is kept.

    Raises:
        AssertionError: wrong types, duplicates, or numbers that do not fit.
    """
    assert save_best is None or _is_str_or_list(save_best), (
        f'"save_best" should be a str or list of str or None, but got {type(save_best)}'
    )
    assert rule is None or _is_str_or_list(rule), (
        f'"rule" should be a str or list of str or None, but got {type(rule)}'
    )
    if save_best is None:
        return None, []
    metrics = [save_best] if isinstance(save_best, str) else save_best
    if "auto" in metrics:
        assert len(metrics) == 1, 'Only support one "auto" in "save_best" list.'
    assert len(metrics) == len(set(metrics)), 'Find duplicate element in "save_best".'
    rules: list[str | None] = [rule] if rule is None or isinstance(rule, str) else [*rule]
    if len(rules) == 1:
        rules = rules * len(metrics)
    assert len(rules) == len(metrics), (
        f'Number of "rule" must be 1 or the same as number of "save_best", but got {len(rules)}.'
    )
    return metrics, rules


def settled_rule(
    rule: str | None, metric: str, greater_keys: Sequence[str], less_keys: Sequence[str]
) -> str | None:
    """The rule of a metric, inferred from its name where none is given; None for 'auto'.

    Raises:
        KeyError: there is no such rule.
        ValueError: none can be inferred.
    """
    if rule is not None and rule not in RULES:
        raise KeyError(f"rule must be greater, less or None, but got {rule}.")
    if rule is not None or metric == "auto":
        return rule
    found = infer_rule(metric, greater_keys, less_keys)
    if found is None:
        raise ValueError(
            f"Cannot infer the rule for key {metric}, thus a specific rule must be specified."
        )
    return found


def checked_names(given: Any, default: list[str], argument: str) -> Sequence[str]:
    """Names that tell a rule: the default ones, one, or a sequence."""
    if given is None:
        return default
    if isinstance(given, str):
        return (given,)
    assert isinstance(given, Sequence) and all(isinstance(name, str) for name in given), (
        f"{argument} must be a str or a sequence of str, got {given!r}"
    )
    return given


def checked_published_keys(given: Any) -> list[str] | None:
    """The entries of a published copy as a list; None publishes nothing.

    Raises:
        TypeError: neither a name nor a sequence of names.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return [given]
    if isinstance(given, Sequence):
        return list(given)
    raise TypeError(
        f'"published_keys" should be a str or a sequence of str or None, but got {type(given)}'
    )


def score_of(metrics: Mapping[str, Any], metric: str) -> Any:
    """The score of a metric as a number.

    Raises:
        KeyError: the validation did not give it; tells what it gave.
    """
    if metric not in metrics:
        raise KeyError(
            f"save_best wants the metric {metric!r}, which this validation did not give; it gave "
            f"{list(metrics)}"
        )
    score = metrics[metric]
    return score.item() if isinstance(score, Tensor) else score


def best_file_name(metric: str, newest: str) -> str:
    """The file name of a metric's best checkpoint, from that of the newest one."""
    return f"best_{_ILLEGAL_IN_NAMES.sub('_', metric)}_{newest}"


def _is_str_or_list(value: Any) -> bool:
    is_list = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return isinstance(value, str) or is_list
