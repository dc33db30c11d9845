"""Kinds of layers."""

from __future__ import annotations

from torch import nn

from .parrots_wrapper import _BatchNorm, _InstanceNorm

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def is_norm(layer: nn.Module, exclude: type | tuple[type, ...] | None = None) -> bool:
    """Whether a layer normalizes.

    Args:
        layer: the layer.
        exclude: classes that do not count.
    """
    if exclude is None:
        exclude = ()
    kinds = exclude if isinstance(exclude, tuple) else (exclude,)
    if not all(isinstance(kind, type) for kind in kinds):
        raise TypeError(
            '"exclude" must be either None or type or a tuple of types, '
            f"but got {type(exclude)}: {exclude}"
        )
    return isinstance(layer, _NORMS) and not isinstance(layer, kinds)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is a batch normalization."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())
