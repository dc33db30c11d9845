"""Activation checkpointing: compute named submodules again in the backward pass."""

from __future__ import annotations

from functools import wraps
from operator import attrgetter
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def wrap_forward(forward: Any) -> Any:
    """A forward that keeps only its inputs and runs once more when its gradient is needed."""

    @wraps(forward)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return checkpointed


def turn_on_activation_checkpointing(model: nn.Module, modules: list[str] | str) -> None:
    """Checkpoint the activations of submodules.

    Args:
        model: changed in place.
        modules: dotted names of submodules of `model`.
    """
    for name in [modules] if isinstance(modules, str) else modules:
        try:
            module = attrgetter(name)(model)
        except AttributeError as e:
            raise AttributeError(
                f"activation_checkpointing names {name!r}, which {type(model).__name__} lacks: {e}"
            ) from e
        module.forward = wrap_forward(module.forward)
