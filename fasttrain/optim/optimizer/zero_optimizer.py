"""torch's ZeroRedundancyOptimizer, built from a name."""

from __future__ import annotations

from typing import Any

import torch

from fasttrain.dist import is_main_process
from fasttrain.registry import OPTIMIZERS

try:
    from torch.distributed.optim import ZeroRedundancyOptimizer as _ZeroRedundancyOptimizer
except ImportError:  # a torch built without distributed
    _ZeroRedundancyOptimizer = object  # type: ignore[assignment,misc]


@OPTIMIZERS.register_module()
class ZeroRedundancyOptimizer(_ZeroRedundancyOptimizer):
    """Shards the optimizer's state over the processes of the default group.

    Args:
        params: parameters or groups.
        optimizer_type: name of a class in `torch.optim`.
        kwargs: arguments of torch's class and of the optimizer.
    """

    def __init__(self, params: Any, optimizer_type: str, **kwargs: Any) -> None:
        assert torch.distributed.is_available(), (
            "`torch.distributed.rpc` is not available in this torch; ZeroRedundancyOptimizer "
            "needs a torch that is built with distributed"
        )
        optimizer_class = getattr(torch.optim, optimizer_type, None)
        if optimizer_class is None:
            raise ValueError(
                f"optimizer_type should name an optimizer of torch.optim, got {optimizer_type!r}"
            )
        super().__init__(params, optimizer_class, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """The whole state on the main process, nothing on the others."""
        self.consolidate_state_dict()
        return super().state_dict() if is_main_process() else {}
