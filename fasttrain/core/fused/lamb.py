"""LAMB: Adam's update, scaled per tensor by the ratio of the norms of weights and update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasttrain.core.fused.optimizer import FusedOptimizer
from fasttrain.core.fused.plain import PlainOptimizer, check_betas, check_not_negative


class PlainLAMB(PlainOptimizer):
    """LAMB (You et al., 2020, "Large Batch Optimization for Deep Learning"), composed.

    u = m^ / (sqrt(v^) + eps) + wd p;  p -= lr |p| / |u| u, where a norm of zero gives a ratio of 1.
    """

    state_keys = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        bias_correction: bool = True,
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "maximize": maximize,
            "fused": fused,
        }
        super().__init__(params, defaults)

    @staticmethod
    def update(
        param: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        step = float(state["step"])
        first, second = state["exp_avg"], state["exp_avg_sq"]
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correct = group["bias_correction"]
        correction1 = 1 - beta1**step if correct else 1.0
        correction2 = 1 - beta2**step if correct else 1.0
        update = (first / correction1) / ((second / correction2).sqrt_().add_(group["eps"]))
        update.add_(param, alpha=group["weight_decay"])
        weight_norm, update_norm = param.norm(), update.norm()
        usable = (weight_norm > 0) & (update_norm > 0)
        ratio = torch.where(usable, weight_norm / update_norm, torch.ones_like(weight_norm))
        param.sub_(update.mul_(ratio * float(group["lr"])))


class LAMB(FusedOptimizer, PlainLAMB):
    """LAMB on the native passes; a third one reads the moments again for the scaled update."""

    torch_class = PlainLAMB
    # The trust ratio's pass reads the moments again: rounded ones would not fit the norms.
    default_state_dtype = torch.float32
    hyper_keys = ("lr", "betas", "eps", "weight_decay", "bias_correction", "maximize")

    @classmethod
    def rule_of(cls, group: dict[str, Any]) -> tuple[str, bool, tuple[float, ...]]:
        beta1, beta2 = group["betas"]
        values = (
            float(group["lr"]),
            float(beta1),
            float(beta2),
            float(group["eps"]),
            float(group["weight_decay"]),
            float(group["bias_correction"]),
        )
        return "lamb", bool(group["maximize"]), values

    @classmethod
    def state_names(cls, group: dict[str, Any]) -> tuple[str, ...]:
        return PlainLAMB.state_keys
