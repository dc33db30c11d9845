"""SGD with momentum, dampening and Nesterov's variant, in one pass."""

from __future__ import annotations

from typing import Any

import torch

from fasttrain.core.fused.optimizer import FusedOptimizer


class SGD(FusedOptimizer, torch.optim.SGD):
    """`torch.optim.SGD` on the native passes."""

    torch_class = torch.optim.SGD
    hyper_keys = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
    has_step_count = False

    @classmethod
    def rule_of(cls, group: dict[str, Any]) -> tuple[str, bool, tuple[float, ...]]:
        momentum = float(group["momentum"])
        values = (float(group["lr"]), float(group["weight_decay"]), momentum, group["dampening"])
        rule = "sgd" if not momentum else "sgd_nesterov" if group["nesterov"] else "sgd_momentum"
        return rule, bool(group["maximize"]), values

    @classmethod
    def state_names(cls, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()
