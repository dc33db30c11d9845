"""RMSprop, centered or not, with or without momentum."""

from __future__ import annotations

from typing import Any

import torch

from fasttrain.core.fused.optimizer import FusedOptimizer


class RMSprop(FusedOptimizer, torch.optim.RMSprop):
    """`torch.optim.RMSprop` on the native passes."""

    torch_class = torch.optim.RMSprop
    hyper_keys = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")

    @classmethod
    def rule_of(cls, group: dict[str, Any]) -> tuple[str, bool, tuple[float, ...]]:
        keys = ("lr", "alpha", "eps", "weight_decay", "momentum")
        values = tuple(float(group[key]) for key in keys)
        centered = "_centered" if group["centered"] else ""
        momentum = "_momentum" if group["momentum"] > 0 else ""
        return f"rmsprop{centered}{momentum}", bool(group.get("maximize")), values

    @classmethod
    def state_names(cls, group: dict[str, Any]) -> tuple[str, ...]:
        centered = ("grad_avg",) if group["centered"] else ()
        momentum = ("momentum_buffer",) if group["momentum"] > 0 else ()
        return ("square_avg", *centered, *momentum)
