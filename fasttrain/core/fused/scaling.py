"""What a step says to a loss scaler: which scale gradients carry, and if they were finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import OptState


def scale_of(scaler: Any, optimizer: torch.optim.Optimizer) -> Tensor | None:
    """The scale that `optimizer`'s gradients still carry, shape []; None when it is out already.

    Raises:
        RuntimeError: this optimizer was stepped since the last `scaler.update()`.
    """
    stage = scaler._per_optimizer_states[id(optimizer)]["stage"]
    if stage is OptState.STEPPED:
        raise RuntimeError("step() has already been called since the last update().")
    if stage is OptState.UNSCALED:
        return None
    scale: Tensor = scaler._get_scale_async()
    if scale is None:
        raise RuntimeError(
            "the loss scaler has no scale yet: call scaler.scale(loss) before the step"
        )
    return scale


def record_found_inf(scaler: Any, optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
    """Tell `scaler` whether `optimizer` met a non-finite gradient, so that `update()` sees it."""
    record = getattr(scaler, "record_found_inf", None)
    if record is not None:
        record(optimizer, found_inf)
        return
    state = scaler._per_optimizer_states[id(optimizer)]
    state["found_inf_per_device"] = {found_inf.device: found_inf}
    state["stage"] = OptState.STEPPED
