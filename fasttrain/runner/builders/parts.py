"""Build the runner's other parts: loops, evaluators and whatever a registry makes from a dict."""

from __future__ import annotations

from typing import Any

from fasttrain.evaluator import Evaluator
from fasttrain.registry import EVALUATOR, LOOPS, Registry

from ..base_loop import BaseLoop


def build_part(given: Any, kind: type, registry: Registry, message: str, **defaults: Any) -> Any:
    """Return `given` when it is a `kind`, or build it from a dict.

    Args:
        message: what the TypeError says before "but got".
        defaults: arguments that the dict may leave out.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, dict):
        raise TypeError(f"{message}, but got {given}")
    return registry.build({**defaults, **given})


def build_loop(loop: Any, name: str, default_type: str | None, **defaults: Any) -> BaseLoop:
    """Build a loop.

    Args:
        name: 'train_loop', ..., for the message.
        default_type: the type of a dict without one; None: `by_epoch` decides.
        defaults: the loop's runner, dataloader, ...
    """
    if isinstance(loop, BaseLoop):
        return loop
    if not isinstance(loop, dict):
        raise TypeError(f"{name} should be a Loop object or dict, but got {loop}")
    options = dict(loop)
    if default_type is None:
        if "type" in options and "by_epoch" in options:
            raise RuntimeError("Only one of `type` or `by_epoch` can exist in `loop_cfg`.")
        if "type" not in options:
            if "by_epoch" not in options:
                raise KeyError(
                    "by_epoch: train_cfg needs `type`, or `by_epoch` to choose between "
                    f"EpochBasedTrainLoop and IterBasedTrainLoop, got {loop}"
                )
            by_epoch = options.pop("by_epoch")
            default_type = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
    options.setdefault("type", default_type)
    return LOOPS.build(options, default_args=defaults)


def build_evaluator(evaluator: Any) -> Evaluator:
    """Build an evaluator from its config, or from one or several metrics or their configs."""
    if isinstance(evaluator, Evaluator):
        return evaluator
    if isinstance(evaluator, dict) and "metrics" in evaluator:
        return EVALUATOR.build({"type": "Evaluator", **evaluator})
    if isinstance(evaluator, dict | list):
        return Evaluator(evaluator)
    raise TypeError(
        f"evaluator should be one of dict, list of dict, and Evaluator, but got {evaluator}"
    )
