"""Lion: the sign of a momentum, with decoupled weight decay."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fasttrain.core.fused.optimizer import FusedOptimizer
from fasttrain.core.fused.plain import PlainOptimizer, check_betas, check_not_negative


class PlainLion(PlainOptimizer):
    """Lion (Chen et al., 2023, "Symbolic Discovery of Optimization Algorithms"), composed.

    u = sign(b1 m + (1 - b1) g);  p = (1 - lr wd) p - lr u;  m = b2 m + (1 - b2) g
    """

    state_keys = ("exp_avg",)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_not_negative(lr=lr, weight_decay=weight_decay)
        check_betas(betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "fused": fused,
        }
        super().__init__(params, defaults)

    @staticmethod
    def update(
        param: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        momentum, lr = state["exp_avg"], float(group["lr"])
        sign = momentum.mul(beta1).add_(grad, alpha=1 - beta1).sign_()
        param.mul_(1 - lr * group["weight_decay"]).add_(sign, alpha=-lr)
        momentum.mul_(beta2).add_(grad, alpha=1 - beta2)


class Lion(FusedOptimizer, PlainLion):
    """Lion on the native passes."""

    torch_class = PlainLion
    hyper_keys = ("lr", "betas", "weight_decay", "maximize")

    @classmethod
    def rule_of(cls, group: dict[str, Any]) -> tuple[str, bool, tuple[float, ...]]:
        beta1, beta2 = group["betas"]
        values = (float(group["lr"]), float(beta1), float(beta2), float(group["weight_decay"]))
        return "lion", bool(group["maximize"]), values

    @classmethod
    def state_names(cls, group: dict[str, Any]) -> tuple[str, ...]:
        return PlainLion.state_keys
