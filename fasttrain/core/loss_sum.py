"""The sum of a model's losses: a few are added up, many are stacked, which costs a third."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ADD_UP_TO = 3  # so many are added one by one


def add_up(parts: list[Any]) -> Any:
    """The sum of one or more losses, shape [] unless one of them is larger."""
    stacked = stack_losses(parts)
    if stacked is not None:
        return stacked.sum()
    first, *others = parts
    return sum(others, first)


def stack_losses(parts: list[Any]) -> Tensor | None:
    """Many losses as one tensor.

    Adding K losses up takes K - 1 kernels forward and as many nodes backward, stacking them one
    of each. Their gradients are ones either way; their sum may differ in its last bit.

    Args:
        parts: the losses.
    Returns:
        shape [K]; None when they are few, or no floating point scalars of one device.
    """
    if len(parts) <= ADD_UP_TO:
        return None
    try:
        stacked = torch.stack(parts)
    except (TypeError, RuntimeError):
        return None
    return stacked if stacked.dim() == 1 and stacked.is_floating_point() else None
