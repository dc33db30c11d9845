"""Where a model runs and how it is compiled; so far on one device of this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class SingleDevice:
    """One model on one device.

    Args:
        device: by default this process's CUDA device when there is one, else the CPU.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)

    def prepare(self, model: nn.Module) -> nn.Module:
        """Move the model, in place, to the device."""
        return model.to(self.device)

    def compile(
        self, model: nn.Module, options: Mapping[str, Any], target: str = "forward"
    ) -> None:
        """Replace the method `target` of `model` by a compiled one.

        Compiling `forward` leaves the optimizer step outside, so that neither a changing learning
        rate nor a counter makes it compile again.
        """
        setattr(model, target, torch.compile(getattr(model, target), **options))
