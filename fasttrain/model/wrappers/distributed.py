"""MMDistributedDataParallel: torch's DDP with the steps of a BaseModel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from fasttrain.model.utils import detect_anomalous_params, run_forward
from fasttrain.registry import MODEL_WRAPPERS

if TYPE_CHECKING:
    from fasttrain.optim import OptimWrapper

MODEL_WRAPPERS.register_module(module=DistributedDataParallel)
MODEL_WRAPPERS.register_module(module=DataParallel)


class WrappedSteps:
    """The steps of a wrapper whose own forward must run (it synchronizes gradients or shards)."""

    module: Any

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """Forward through the wrapper, backward, step; return the losses to log."""
        return self._train_step(data, optim_wrapper)[1]

    def _train_step(self, data: Any, optim_wrapper: OptimWrapper) -> tuple[Tensor, dict[str, Any]]:
        with optim_wrapper.optim_context(self):  # type: ignore[arg-type]
            losses = self._run_forward(self.module.data_preprocessor(data, True), mode="loss")
        loss, log_vars = self.module.parse_losses(losses)
        optim_wrapper.update_params(loss)
        return loss, log_vars

    def _run_forward(self, data: dict | tuple | list, mode: str) -> Any:
        return run_forward(self, data, mode)  # type: ignore[arg-type]


@MODEL_WRAPPERS.register_module()
class MMDistributedDataParallel(WrappedSteps, DistributedDataParallel):
    """DistributedDataParallel whose train_step goes through DDP's forward.

    Args:
        module: the model.
        detect_anomalous_params: log, every iteration, trainable parameters without a gradient.
        kwargs: DistributedDataParallel's.
    """

    def __init__(
        self, module: nn.Module, detect_anomalous_params: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(module=module, **kwargs)
        self.detect_anomalous_params = detect_anomalous_params

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """Forward through DDP, backward, step; return the losses to log."""
        loss, log_vars = self._train_step(data, optim_wrapper)
        if self.detect_anomalous_params:
            detect_anomalous_params(loss, model=self)
        return log_vars

    def val_step(self, data: dict | tuple | list) -> list:
        """Predict on one batch; nothing to synchronize."""
        return self.module.val_step(data)

    def test_step(self, data: dict | tuple | list) -> list:
        """Predict on one batch; nothing to synchronize."""
        return self.module.test_step(data)
