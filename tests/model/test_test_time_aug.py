"""Test-time augmentation: every view predicted, then merged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.model import BaseModel, BaseTTAModel, ImgDataPreprocessor
from fasttrain.registry import MODELS


class Plain(nn.Module):
    def test_step(self, data: Any) -> list:
        return [("seen", data)]


class Merged(BaseTTAModel):
    def merge_preds(self, data_samples_list: list) -> list:
        return data_samples_list


@pytest.mark.parametrize(
    ("data", "views"),
    [
        ({"inputs": [1, 2], "data_samples": [3, 4]}, [
            {"inputs": 1, "data_samples": 3}, {"inputs": 2, "data_samples": 4},
        ]),
        ([[1, 2], [3, 4]], [[1, 3], [2, 4]]),
        (((1, 2), (3, 4)), [[1, 3], [2, 4]]),
    ],
)  # fmt: skip
def test_views_are_predicted_one_by_one_and_merged_per_sample(data: Any, views: list) -> None:
    assert Merged(Plain()).test_step(data) == [tuple(("seen", view) for view in views)]


def test_a_config_is_built_with_the_preprocessor() -> None:
    @MODELS.register_module(name="TtaToy")
    class Toy(BaseModel):
        def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = "") -> Any:
            return inputs

    try:
        config = {"type": "TtaToy"}
        model = Merged(config, data_preprocessor={"type": "ImgDataPreprocessor"})
        assert isinstance(model.module.data_preprocessor, ImgDataPreprocessor)
        assert config == {"type": "TtaToy"}
    finally:
        MODELS.module_dict.pop("TtaToy")


def test_wrong_modules_and_data() -> None:
    with pytest.raises(TypeError, match=r"should be a `nn.Module` instance or a dict, but got 3"):
        Merged(3)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="must implement `test_step`"):
        Merged(nn.Identity())
    with pytest.raises(TypeError, match="should be a dict, tuple or a list, but got <class 'int'>"):
        Merged(Plain()).test_step(3)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="Please call `test_step` instead"):
        Merged(Plain())(torch.ones(1))
    with pytest.raises(TypeError, match="abstract"):
        BaseTTAModel(Plain())  # type: ignore[abstract]
