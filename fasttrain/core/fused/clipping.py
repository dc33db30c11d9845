"""How gradients are clipped: a setting, resolved once for the native passes and for torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fasttrain.core.sharding import any_sharded, whole


def raise_nonfinite(norm_type: float) -> None:
    """The error of `error_if_nonfinite`."""
    raise RuntimeError(
        f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it "
        "cannot be clipped. To disable this error and scale the gradients by the non-finite norm "
        "anyway, set `error_if_nonfinite=False`"
    )


def gradient_values(grads: Iterable[Tensor]) -> list[Tensor]:
    """The tensors that hold the gradients' numbers; a sparse gradient is coalesced in place."""
    found = []
    for grad in grads:
        if grad.is_sparse:
            if not grad.is_coalesced():
                grad.data = grad.coalesce()
            grad = grad._values()
        found.append(torch.view_as_real(grad) if grad.is_complex() else grad)
    return [values for values in found if values.numel()]


def total_norm(values: list[Tensor], norm_type: float) -> Tensor:
    """The norm of all gradients as one vector, shape [], float32, on the first one's device."""
    if not values:
        return torch.zeros(())
    if any_sharded(values):
        return whole(torch.nn.utils.get_total_norm(values, norm_type)).float()
    device = values[0].device
    norms = [torch.linalg.vector_norm(v, norm_type, dtype=torch.float32) for v in values]
    total: Tensor = torch.linalg.vector_norm(torch.stack([n.to(device) for n in norms]), norm_type)
    return total


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """A clip setting with every question answered.

    Attributes:
        source: the setting that this was made from.
        by_norm: whether the norm is limited (and returned).
        power: the norm's order.
        max_norm: the largest norm; negative for no limit.
        limit: the largest magnitude of a value; negative for no limit.
        strict: whether a non-finite norm is an error.
    """

    source: Any = None
    by_norm: bool = False
    power: float = 2.0
    max_norm: float = -1.0
    limit: float = -1.0
    strict: bool = False

    @staticmethod
    def of(clip: Any) -> ClipPlan:
        """Resolve a setting: None, or what has `type`, `max_norm`, `norm_type`, `clip_value`, ...

        Raises:
            ValueError: its type or its norm's order is not known.
        """
        if clip is None:
            return NO_CLIP
        if clip.type == "value":
            return ClipPlan(clip, limit=float(clip.clip_value))
        if clip.type != "norm":
            raise ValueError(f"clip.type must be 'norm' or 'value', got {clip.type!r}")
        power = float(clip.norm_type)
        if not power > 0.0:
            raise ValueError(f"clip.norm_type must be > 0, got {clip.norm_type!r}")
        strict = bool(clip.error_if_nonfinite)
        return ClipPlan(clip, True, power, float(clip.max_norm), strict=strict)

    @property
    def kind(self) -> str:
        """The native name of the norm that is needed."""
        if not self.by_norm:
            return "none"
        return "two" if self.power == 2.0 else "inf" if math.isinf(self.power) else "power"

    def reduce(self, params: list[Tensor], check: bool) -> float:
        """What the gradients of `params` add to the norm's sum (or maximum).  # sync point"""
        if not self.by_norm and not check:
            return 0.0
        values = gradient_values(p.grad for p in params if p.grad is not None)
        if not values:
            return 0.0
        if math.isinf(self.power):
            return float(
                torch.stack([whole(v.detach().abs().amax()).double().cpu() for v in values]).amax()
            )
        parts = [
            whole(torch.linalg.vector_norm(v.detach(), self.power, dtype=torch.float64)).cpu()
            for v in values
        ]
        return float(torch.stack(parts).pow(self.power).sum())

    def apply(self, values: list[Tensor]) -> Tensor | None:
        """Clip gradients in place; the norm before it, when clipping by norm.

        Raises:
            RuntimeError: the norm is not finite and that is an error.
        """
        if self.limit >= 0.0:
            for v in values:
                v.clamp_(-self.limit, self.limit)
        if not self.by_norm:
            return None
        norm = total_norm(values, self.power)
        if self.strict and not bool(torch.isfinite(norm)):  # sync point
            raise_nonfinite(self.power)
        coefficient = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        for v in values:
            v.mul_(coefficient.to(v.device))
        return norm


NO_CLIP = ClipPlan()
