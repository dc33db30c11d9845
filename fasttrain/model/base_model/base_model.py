"""BaseModel: the steps of training, validation and test that a loop calls."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fasttrain.core.loss_sum import add_up
from fasttrain.model.base_model.data_preprocessor import BaseDataPreprocessor
from fasttrain.model.base_module import BaseModule
from fasttrain.model.utils import run_forward
from fasttrain.registry import MODELS

if TYPE_CHECKING:
    from fasttrain.optim import OptimWrapper


class BaseModel(BaseModule):
    """Base of all models: subclasses write `forward(inputs, data_samples, mode)`.

    `mode` is 'loss' (return a dict of losses), 'predict' (return predictions) or 'tensor'.

    Args:
        data_preprocessor: a module or the config of one; None only moves data to the device.
        init_cfg: how to initialize the weights, see `BaseModule`.
    """

    def __init__(
        self,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.data_preprocessor: nn.Module
        if data_preprocessor is None:
            self.data_preprocessor = BaseDataPreprocessor()
        elif isinstance(data_preprocessor, nn.Module):
            self.data_preprocessor = data_preprocessor
        elif isinstance(data_preprocessor, dict):
            self.data_preprocessor = MODELS.build(data_preprocessor)
        else:
            raise TypeError(
                "data_preprocessor should be a `dict` or `nn.Module` instance, but got "
                f"{type(data_preprocessor)}"
            )

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """Forward, backward, step; return the losses to log, still on the device."""
        with optim_wrapper.optim_context(self):
            losses = self._run_forward(self.data_preprocessor(data, True), mode="loss")
        loss, log_vars = self.parse_losses(losses)
        optim_wrapper.update_params(loss)
        return log_vars

    def val_step(self, data: tuple | dict | list) -> list:
        """Predict on one batch."""
        return self._run_forward(self.data_preprocessor(data, False), mode="predict")

    def test_step(self, data: dict | tuple | list) -> list:
        """Predict on one batch."""
        return self._run_forward(self.data_preprocessor(data, False), mode="predict")

    def parse_losses(
        self, losses: Mapping[str, Tensor | list[Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Join the outputs of `forward(mode='loss')` to one loss and to what is logged.

        Args:
            losses: name -> tensor of any shape (its mean counts) or list of such (summed).
        Returns:
            the sum of all whose name contains 'loss', and all by name with that sum first, under
            'loss'. Nothing is read from the device.
        """
        log_vars: dict[str, Any] = OrderedDict(loss=0)
        parts: list[Any] = []
        for name, value in losses.items():
            # Most losses are plain scalars; asking that here spares them a call.
            scalar = type(value) is Tensor and value.dim() == 0
            mean: Any = value if scalar else _mean(name, value)
            log_vars[name] = mean
            if "loss" in name:
                parts.append(mean)
        total: Any = add_up(parts) if parts else 0
        if "loss" not in losses:
            log_vars["loss"] = total
        return total, log_vars

    @abstractmethod
    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"
    ) -> Any:
        """Compute losses, predictions or plain outputs, as `mode` says."""

    def _run_forward(self, data: dict | tuple | list, mode: str) -> Any:
        return run_forward(self, data, mode)


def _mean(name: str, value: Tensor | list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return value if value.dim() == 0 else value.mean()  # the mean of one number costs a node
    if isinstance(value, list) and all(isinstance(item, Tensor) for item in value):
        return sum(_mean(name, item) for item in value)
    raise TypeError(f"{name} is not a tensor or list of tensors")
