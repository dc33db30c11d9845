"""Which modules are wrappers around a model, and dtypes by their names in a wrapper's config."""

from __future__ import annotations

import torch
from torch import nn

from fasttrain.registry import MODEL_WRAPPERS, Registry


def is_model_wrapper(model: nn.Module, registry: Registry = MODEL_WRAPPERS) -> bool:
    """Whether the class of `model`, or a base of it, is in `registry` or a registry below it."""
    wrappers = tuple(kind for kind in registry.module_dict.values() if isinstance(kind, type))
    if isinstance(model, wrappers):
        return True
    return any(is_model_wrapper(model, child) for child in registry.children.values())


def named_dtype(name: str) -> torch.dtype | None:
    """The dtype that torch calls so, with or without `torch.`; None when there is none."""
    found = getattr(torch, name.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else None
