"""Adam and AdamW, with AMSGrad."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from fasttrain.core.fused.optimizer import FusedOptimizer


class Adam(FusedOptimizer, torch.optim.Adam):
    """`torch.optim.Adam` on the native passes."""

    torch_class: ClassVar[type[torch.optim.Optimizer]] = torch.optim.Adam
    hyper_keys = (
        "lr",
        "betas",
        "eps",
        "weight_decay",
        "amsgrad",
        "maximize",
        "decoupled_weight_decay",
    )
    always_decoupled = False

    @classmethod
    def rule_of(cls, group: dict[str, Any]) -> tuple[str, bool, tuple[float, ...]]:
        decoupled = cls.always_decoupled or bool(group.get("decoupled_weight_decay"))
        beta1, beta2 = group["betas"]
        values = (
            float(group["lr"]),
            float(beta1),
            float(beta2),
            float(group["eps"]),
            float(group["weight_decay"]),
            float(decoupled),
        )
        return ("adam_amsgrad" if group["amsgrad"] else "adam"), bool(group["maximize"]), values

    @classmethod
    def state_names(cls, group: dict[str, Any]) -> tuple[str, ...]:
        names = ("exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names


class AdamW(Adam, torch.optim.AdamW):
    """`torch.optim.AdamW` on the native passes."""

    torch_class = torch.optim.AdamW
    always_decoupled = True
