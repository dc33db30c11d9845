"""BaseTTAModel: predict several augmented views of each sample and merge the predictions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from fasttrain.model.base_model import BaseModel
from fasttrain.registry import MODELS


@MODELS.register_module()
class BaseTTAModel(BaseModel):
    """Base of models for test-time augmentation: subclasses write `merge_preds`.

    Args:
        module: the model, or the config of it.
        data_preprocessor: for the model, when it is built from a config.
    """

    def __init__(
        self, module: dict | nn.Module, data_preprocessor: dict | nn.Module | None = None
    ) -> None:
        super().__init__()
        if isinstance(module, dict):
            if data_preprocessor is not None:
                module = {**module, "data_preprocessor": data_preprocessor}
            module = MODELS.build(module)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"The type of module should be a `nn.Module` instance or a dict, but got {module}"
            )
        self.module = module
        assert hasattr(self.module, "test_step"), (
            "Model wrapped by BaseTTAModel must implement `test_step`!"
        )

    @abstractmethod
    def merge_preds(self, data_samples_list: list[list[Any]]) -> list[Any]:
        """Merge the predictions of each sample's views to one.

        Args:
            data_samples_list: per sample, the predictions of its views.
        """

    def test_step(self, data: dict | tuple | list) -> list:
        """Predict every view of a batch and merge.

        Args:
            data: as `pseudo_collate` joins it: [view][sample] in every field.
        """
        if isinstance(data, dict):
            num_views = len(next(iter(data.values())))
            views: list[Any] = [
                {key: value[index] for key, value in data.items()} for index in range(num_views)
            ]
        elif isinstance(data, tuple | list):
            views = [[field[index] for field in data] for index in range(len(data[0]))]
        else:
            raise TypeError(
                f"data given by dataLoader should be a dict, tuple or a list, but got {type(data)}"
            )
        predictions = [self.module.test_step(view) for view in views]  # type: ignore[operator]
        return self.merge_preds(list(zip(*predictions, strict=False)))  # type: ignore[arg-type]

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"
    ) -> Any:
        """Not used: `test_step` is."""
        raise NotImplementedError(
            "`BaseTTAModel.forward` will not be called during training or testing. Please call "
            "`test_step` instead. If you want to use `BaseTTAModel.forward`, please implement "
            "this method"
        )
