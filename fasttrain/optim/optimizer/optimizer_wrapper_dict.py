"""Several optimizer wrappers under names, for models that are trained by more than one."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import torch
from torch import nn

from .optimizer_wrapper import OptimWrapper


def _separately(name: str) -> NoReturn:
    raise NotImplementedError(f"`{name}` should be called by each optimizer separately`")


class OptimWrapperDict(OptimWrapper):
    """A dict of optimizer wrappers, which the model's `train_step` drives one by one.

    Args:
        optim_wrapper_dict: name -> wrapper.
    """

    def __init__(self, **optim_wrapper_dict: OptimWrapper) -> None:
        for key, value in optim_wrapper_dict.items():
            assert isinstance(value, OptimWrapper), (
                "`OptimWrapperDict` only accept OptimWrapper instance, "
                f"but got {key}: {type(value)}"
            )
        self.optim_wrappers = optim_wrapper_dict

    def update_params(
        self,
        loss: torch.Tensor,
        step_kwargs: dict[str, Any] | None = None,
        zero_kwargs: dict[str, Any] | None = None,
    ) -> None:
        _separately("update_params")

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        _separately("backward")

    def step(self, **kwargs: Any) -> None:
        _separately("step")

    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients of all wrappers."""
        for wrapper in self.optim_wrappers.values():
            wrapper.zero_grad(**kwargs)

    def optim_context(self, model: nn.Module) -> AbstractContextManager[Any]:
        _separately("optim_context")

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        """Nothing to do: how often each wrapper steps is up to the model."""

    @property
    def param_groups(self) -> dict[str, list[dict[str, Any]]]:  # type: ignore[override]
        """Name -> groups of that wrapper."""
        return {name: wrapper.param_groups for name, wrapper in self.optim_wrappers.items()}

    def get_lr(self) -> dict[str, list[Any]]:
        """`{"name.lr": [one per group]}`."""
        return self._prefixed("get_lr")

    def get_momentum(self) -> dict[str, list[Any]]:
        """`{"name.momentum": [one per group]}`."""
        return self._prefixed("get_momentum")

    def _prefixed(self, getter: str) -> dict[str, list[Any]]:
        return {
            f"{name}.{key}": values
            for name, wrapper in self.optim_wrappers.items()
            for key, values in getattr(wrapper, getter)().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Name -> state of that wrapper."""
        return {name: wrapper.state_dict() for name, wrapper in self.optim_wrappers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, state in state_dict.items():
            assert name in self.optim_wrappers, (
                f"Mismatched `state_dict`! cannot found {name} in OptimWrapperDict"
            )
            self.optim_wrappers[name].load_state_dict(state)

    def items(self) -> ItemsView[str, OptimWrapper]:
        return self.optim_wrappers.items()

    def values(self) -> ValuesView[OptimWrapper]:
        return self.optim_wrappers.values()

    def keys(self) -> KeysView[str]:
        return self.optim_wrappers.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.optim_wrappers)

    def __getitem__(self, key: str) -> OptimWrapper:
        assert key in self.optim_wrappers, (
            f"Cannot find {key} in OptimWrapperDict, please check your optimizer constructor. "
            f"It has {list(self.optim_wrappers)}."
        )
        return self.optim_wrappers[key]

    def __contains__(self, key: str) -> bool:
        return key in self.optim_wrappers

    def __len__(self) -> int:
        return len(self.optim_wrappers)

    def __repr__(self) -> str:
        return "\n".join(
            f"name: {name}\n{wrapper!r}".rstrip("\n")
            for name, wrapper in self.optim_wrappers.items()
        ) + ("\n" if self.optim_wrappers else "")
