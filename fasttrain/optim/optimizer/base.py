"""The interface through which the training loop, hooks and schedulers see an optimizer."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import torch

from fasttrain.core.sharding import shard_optimizer_state


class BaseOptimWrapper(metaclass=ABCMeta):
    """What every optimizer wrapper offers.

    Args:
        optimizer: the optimizer to wrap.
    """

    # Settings shared by all groups, for an optimizer with many: shown as one more group, so that
    # schedulers move it too and logs can show one base learning rate.
    base_param_settings: dict[str, Any] | None = None

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.base_param_settings = None

    @abstractmethod
    def update_params(self, *args: Any, **kwargs: Any) -> Any:
        """Backpropagate, and step and zero the gradients when due."""

    @abstractmethod
    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Backpropagate `loss`."""

    @abstractmethod
    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients."""

    @abstractmethod
    def step(self, **kwargs: Any) -> Any:
        """Update the parameters."""

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, and the base settings where there are some."""
        state = self.optimizer.state_dict()
        if self.base_param_settings is not None:
            state["base_param_settings"] = self.base_param_settings
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        base_param_settings = state.pop("base_param_settings", None)
        if base_param_settings is not None:
            self.base_param_settings = base_param_settings
        self.optimizer.load_state_dict(shard_optimizer_state(self.optimizer, state))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups, followed by the base settings where there are some."""
        if self.base_param_settings is None:
            return self.optimizer.param_groups
        return [*self.optimizer.param_groups, self.base_param_settings]

    @property
    def defaults(self) -> dict[str, Any]:
        """The optimizer's default settings."""
        return self.optimizer.defaults

    def get_lr(self) -> dict[str, list[Any]]:
        """`{"lr": [one per group]}`, and `base_lr` where there are base settings."""
        learning_rates: dict[str, list[Any]] = {}
        if self.base_param_settings is not None:
            learning_rates["base_lr"] = [self.base_param_settings["lr"]]
        learning_rates["lr"] = [group["lr"] for group in self.optimizer.param_groups]
        return learning_rates

    def get_momentum(self) -> dict[str, list[Any]]:
        """`{"momentum": [one per group]}`; `betas[0]` for Adam's kin, 0 where there is none."""
        momenta = []
        for group in self.optimizer.param_groups:
            if "momentum" in group:
                momenta.append(group["momentum"])
            elif "betas" in group:
                momenta.append(group["betas"][0])
            else:
                momenta.append(0)
        return {"momentum": momenta}
