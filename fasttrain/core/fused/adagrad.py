"""Adagrad."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasttrain.core.fused.optimizer import FusedOptimizer


class Adagrad(FusedOptimizer, torch.optim.Adagrad):
    """`torch.optim.Adagrad` on the native passes."""

    torch_class = torch.optim.Adagrad
    hyper_keys = ("lr", "lr_decay", "weight_decay", "eps", "maximize")

    @classmethod
    def rule_of(cls, group: dict[str, Any]) -> tuple[str, bool, tuple[float, ...]]:
        values = tuple(float(group[key]) for key in ("lr", "lr_decay", "weight_decay", "eps"))
        return "adagrad", bool(group["maximize"]), values

    @classmethod
    def state_names(cls, group: dict[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def new_state(self, group: dict[str, Any], param: Tensor) -> float:
        return float(group["initial_accumulator_value"])
