"""The fused step out of torch's own operations: the same results in more passes over memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fasttrain.core.fused.clipping import ClipPlan, gradient_values
from fasttrain.core.fused.scaling import record_found_inf, scale_of
from fasttrain.core.sharding import whole


def all_finite(values: list[Tensor]) -> bool:
    """Whether every number is finite, on all ranks that share in it.  # sync point"""
    return all(bool(whole(torch.isfinite(v).all())) for v in values)


@torch.no_grad()
def composed_step(
    optimizer: Any,
    step: Callable[[], object],
    *,
    scaler: Any,
    clip: Any,
    divisor: float,
    zero: bool,
) -> Tensor | None:
    """Unscale, check, clip, step and zero, one after the other.

    Args:
        optimizer: a fused optimizer, whose gradients are meant.
        step: updates the parameters from their gradients.
        scaler: an enabled loss scaler, or None.
        clip: how to clip, or None.
        divisor: number of batches whose gradients were summed.
        zero: zero the gradients in place afterwards.
    """
    found = (optimizer.gradient_of(p) for group in optimizer.param_groups for p in group["params"])
    grads = [grad for grad in found if grad is not None]
    values = gradient_values(grads)
    scale = scale_of(scaler, optimizer) if scaler is not None else None
    if scale is not None or divisor != 1.0:
        factor = 1.0 / (divisor * (1.0 if scale is None else float(scale)))  # sync point
        for v in values:
            v.mul_(factor)
    finite = scaler is None or all_finite(values)
    norm = ClipPlan.of(clip).apply(values)
    if finite:
        step()
    if scaler is not None:
        device = values[0].device if values else None
        record_found_inf(scaler, optimizer, torch.full((), float(not finite), device=device))
    if zero:
        for grad in grads:
            grad.zero_()
    return norm


@torch.no_grad()
def step_outside(
    optimizer: Any, params: list[Tensor], factor: float, clip: ClipPlan, update: bool, zero: bool
) -> None:
    """Update the parameters that stay outside the native passes, with torch's own step.

    Args:
        optimizer: a fused optimizer.
        params: its parameters that stay outside.
        factor: what their gradients are to be multiplied with.
        clip: limits their values afterwards, when it clips by value.
        update: False when a non-finite gradient means that nothing may change.
        zero: zero their gradients in place afterwards.
    """
    grads = [p.grad for p in params if p.grad is not None]
    if update:
        for values in gradient_values(grads):
            values.mul_(factor)
            if clip.limit >= 0.0:
                values.clamp_(-clip.limit, clip.limit)
        wanted = {id(p) for p in params}
        groups = optimizer.param_groups
        optimizer.param_groups = [
            {**group, "params": [p for p in group["params"] if id(p) in wanted]} for group in groups
        ]
        try:
            optimizer._torch_step()
        finally:
            optimizer.param_groups = groups
    if zero:
        for grad in grads:
            grad.zero_()
