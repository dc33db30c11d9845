"""How parameters and moments are stored: master weights, low-precision moments, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOW = (torch.float16, torch.bfloat16)
MASTER = "master_param"


@dataclass(frozen=True, slots=True)
class StateOptions:
    """The precision options of a fused optimizer (see `FusedOptimizer`)."""

    master_weights: bool | str = False
    state_dtype: torch.dtype | None = None
    stochastic_rounding: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.master_weights not in (False, True, "split"):
            raise ValueError(
                f"master_weights must be True, False or 'split', got {self.master_weights!r}"
            )
        if self.state_dtype not in (None, torch.float32, *LOW):
            raise ValueError(
                "state_dtype must be torch.float32, torch.bfloat16 or torch.float16, "
                f"got {self.state_dtype!r}"
            )
        if self.stochastic_rounding and self.state_dtype is not torch.bfloat16:
            raise ValueError(
                "stochastic_rounding rounds bfloat16 moments: set state_dtype=torch.bfloat16, "
                f"got state_dtype={self.state_dtype!r}"
            )

    @property
    def plain(self) -> bool:
        """Whether everything is stored as torch stores it."""
        return not self.master_weights and self.state_dtype is None

    def master_of(self, param: Tensor) -> str:
        """`none`, `full` or `split16`: what a parameter needs."""
        if not self.master_weights or param.dtype not in LOW:
            return "none"
        return "split16" if self.master_weights == "split" and param.dtype is LOW[1] else "full"

    def dtype_of(self, param: Tensor) -> torch.dtype:
        """In which dtype a parameter's moments are stored."""
        if self.state_dtype is not None:
            return self.state_dtype
        return torch.float32 if self.master_of(param) != "none" else param.dtype

    def slot_seed(self, position: int) -> int:
        """The seed of the stochastic rounding of the parameter at `position` of all parameters."""
        return (self.seed * 0x9E3779B1 + position + 1) & 0xFFFFFFFF

    def new_master(self, param: Tensor) -> Tensor:
        """The master of a parameter that has none yet."""
        if self.master_of(param) == "split16":
            return torch.zeros_like(param, dtype=torch.int16)
        return param.detach().to(torch.float32, memory_format=torch.preserve_format)

    def restore(self, groups: list[dict[str, Any]], state: Any, saved: dict[str, Any]) -> None:
        """Put back what torch's `load_state_dict` cast to the parameter's dtype.

        Args:
            groups: the optimizer's groups after loading.
            state: the optimizer's state after loading.
            saved: the state dict that was loaded.
        """
        if self.plain:
            return
        keys = [key for group in saved["param_groups"] for key in group["params"]]
        params = [p for group in groups for p in group["params"]]
        for key, param in zip(keys, params, strict=True):
            for name, value in saved["state"].get(key, {}).items():
                if name != "step" and isinstance(value, Tensor):
                    dtype = value.dtype if name == MASTER else self.dtype_of(param)
                    state[param][name] = value.detach().to(param.device, dtype, copy=True)
