"""The model inside its wrappers, and the model as it is while it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DataParallel or DistributedDataParallel."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[Any]:
    """The unwrapped model in eval mode and without gradients; its mode is put back afterwards."""
    bare = unwrap(model)
    was_training = bare.training
    with torch.no_grad():
        bare.eval()
        try:
            yield bare
        finally:
            bare.train(was_training)
