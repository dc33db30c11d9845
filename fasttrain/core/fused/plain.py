"""The frame of the optimizers that torch does not have: one update per tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor


def check_not_negative(**values: float | Tensor) -> None:
    """Raise a ValueError for the first negative value, by its name."""
    for name, value in values.items():
        if float(value) < 0.0:
            raise ValueError(f"{name} must be >= 0, got {value}")


def check_betas(betas: tuple[float, float]) -> None:
    """Raise a ValueError unless both decay rates are in [0, 1)."""
    for index, beta in enumerate(betas):
        if not 0.0 <= float(beta) < 1.0:
            raise ValueError(f"betas[{index}] must be in [0, 1), got {beta}")


class PlainOptimizer(torch.optim.Optimizer):
    """An optimizer whose subclass says how one tensor is updated."""

    state_keys: ClassVar[tuple[str, ...]]

    @staticmethod
    def update(
        param: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Change `param` and `state` in place; `state["step"]` counts this update already."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update_one(param, group)
        return loss

    def _update_one(self, param: Tensor, group: dict[str, Any]) -> None:
        grad = param.grad
        assert grad is not None
        if grad.is_sparse:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        state = self.state[param]
        if "step" not in state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
        for key in self.state_keys:
            if key not in state:
                state[key] = torch.zeros_like(param, memory_format=torch.preserve_format)
        state["step"] += 1
        self.update(param, -grad if group["maximize"] else grad, state, group)
