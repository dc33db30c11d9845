"""torch's ZeroRedundancyOptimizer, built from a name.

The class is made when it is first asked for: importing torch's takes most of a second, and few
runs use it.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch

from fasttrain.dist import is_main_process
from fasttrain.registry import OPTIMIZERS


@cache
def _make_class() -> Any:
    assert torch.distributed.is_available(), (
        "ZeroRedundancyOptimizer needs a torch that is built with distributed"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch scripts functions on the way
        from torch.distributed.optim import ZeroRedundancyOptimizer as Base

    class ZeroRedundancyOptimizer(Base):
        """Shards the optimizer's state over the processes of the default group.

        Args:
            params: parameters or groups.
            optimizer_type: name of a class in `torch.optim`.
            kwargs: arguments of torch's class and of the optimizer.
        """

        def __init__(self, params: Any, optimizer_type: str, **kwargs: Any) -> None:
            optimizer_class = getattr(torch.optim, optimizer_type, None)
            if optimizer_class is None:
                raise AttributeError(
                    f"module 'torch.optim' has no attribute {optimizer_type!r}; optimizer_type "
                    "should name an optimizer of torch.optim"
                )
            super().__init__(params, optimizer_class, **kwargs)

        def state_dict(self) -> dict[str, Any]:
            """The whole state on the main process, nothing on the others."""
            self.consolidate_state_dict()
            return super().state_dict() if is_main_process() else {}

    ZeroRedundancyOptimizer.__qualname__ = "ZeroRedundancyOptimizer"
    return ZeroRedundancyOptimizer


def lazy_attribute(module: str, name: str) -> Any:
    """What a module's `__getattr__` gives: the class that is made when asked for."""
    if name == "ZeroRedundancyOptimizer":
        return _make_class()
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, name)


@OPTIMIZERS.register_module(name="ZeroRedundancyOptimizer")
def build_zero_redundancy_optimizer(params: Any, optimizer_type: str, **kwargs: Any) -> Any:
    """Build a `ZeroRedundancyOptimizer`."""
    return _make_class()(params, optimizer_type, **kwargs)
