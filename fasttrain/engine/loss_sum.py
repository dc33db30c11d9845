"""Which of a model's losses are trained on, and how their sum is backpropagated."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fasttrain.core.loss_sum import stack_losses


def is_metric(name: str) -> bool:
    """Whether a name stands for a metric, which is written but not trained on."""
    return "acc" in name.lower()


@lru_cache(maxsize=256)
def metrics_among(names: tuple[str, ...]) -> frozenset[str]:
    """The names that stand for metrics; a model returns the same names step after step."""
    return frozenset(filter(is_metric, names))


def trained_on(losses: Mapping[str, Any]) -> list[Any]:
    """The values of the entries that are no metrics."""
    metrics = metrics_among(tuple(losses))
    if not metrics:
        return list(losses.values())
    return [value for name, value in losses.items() if name not in metrics]


class LossDict(dict[str, Any]):
    """Losses by name.

    Attributes:
        stacked: all of them once more as one tensor [K], where there is one.
        total: the sum of those that are trained on, where there is one in float32.
    """

    stacked: Tensor | None = None
    total: Tensor | None = None


def backward_root(losses: Any) -> tuple[Tensor, Tensor | None, LossDict]:
    """What to backpropagate, with which gradient, and the losses by name.

    Names with `acc` are only measured. A few losses are added up; many are stacked, and the
    gradient of their sum, ones, goes in where the sum would have gone through.

    Returns:
        shape [] and None, or shape [K] and ones of that shape; and the losses.
    Raises:
        TypeError: a loss is no tensor with one element.
        ValueError: nothing to backpropagate.
    """
    if isinstance(losses, Tensor):
        losses = {"total_loss": losses}
    if not isinstance(losses, dict | Mapping):
        raise TypeError(
            f"the model must return a loss tensor or a dict of them, got {type(losses).__name__}"
        )
    found = LossDict(losses)
    parts = trained_on(found)
    if not parts:
        raise ValueError(
            f"no loss to backpropagate among {sorted(losses)}: names with 'acc' are metrics"
        )
    stacked = stack_losses(parts)
    if stacked is None:
        root = _sum_one_by_one(found, parts)
        if root.dtype is torch.float32:
            found.total = root.detach()
        return root, None, found
    if len(parts) == len(found):
        found.stacked = stacked
    return stacked, _ones(len(parts), stacked.device, stacked.dtype), found


@lru_cache(maxsize=256)
def _ones(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.ones(size, device=device, dtype=dtype)


def _sum_one_by_one(losses: Mapping[str, Any], parts: list[Any]) -> Tensor:
    for name, value in losses.items():
        if is_metric(name):
            continue
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"loss {name!r} must be a scalar tensor, got {shape}; reduce it first")
    total: Tensor = parts[0].reshape(()) if parts[0].dim() else parts[0]
    for part in parts[1:]:
        total = total + (part.reshape(()) if part.dim() else part)
    return total
