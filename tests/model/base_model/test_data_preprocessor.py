"""Moving, normalizing, padding and stacking batches."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from fasttrain.model import BaseDataPreprocessor, ImgDataPreprocessor
from fasttrain.registry import MODELS

X = torch.arange(2.0)


class Element:
    """As much of a data element as matters here."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def to(self, device: Any, non_blocking: bool = False) -> Element:
        return Element(str(device))


def test_containers_keep_their_type_and_tensors_their_identity() -> None:
    pair = namedtuple("pair", "left right")
    cast = BaseDataPreprocessor()
    data = {"a": [X, "text", None, b"1"], "b": (X, 1.5), "c": pair(X, 2)}
    moved = cast(data)
    assert moved is not data
    assert moved["a"][0] is X
    assert moved["a"][1:] == ["text", None, b"1"]
    assert type(moved["b"]) is tuple
    assert type(moved["c"]) is pair
    assert type(cast(OrderedDict(a=X))) is dict
    array = np.zeros(1)
    assert cast(array) is array


def test_everything_with_to_moves() -> None:
    cast = BaseDataPreprocessor().to("meta")
    moved = cast({"x": [X], "element": Element(), "class": Element})
    assert moved["x"][0].is_meta
    assert moved["element"].device == "meta"
    assert moved["class"] is Element
    packed = pack_sequence([X])
    assert type(BaseDataPreprocessor()(packed)) is type(packed)


def test_the_device_follows_the_module_and_what_holds_it() -> None:
    preprocessor = BaseDataPreprocessor(non_blocking=True)
    assert preprocessor.device == torch.device("cpu")
    assert preprocessor._non_blocking is True
    outer = nn.Sequential(nn.Sequential(preprocessor))
    outer.to("meta")
    assert preprocessor.device == torch.device("meta")
    outer.to(torch.float16)
    assert preprocessor.device == torch.device("meta")
    assert preprocessor.to_empty(device="cpu") is preprocessor
    assert preprocessor.cpu().device == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_to_the_gpu_and_back() -> None:
    preprocessor = ImgDataPreprocessor([0.0], [1.0]).cuda()
    assert preprocessor.device.type == "cuda"
    assert preprocessor({"inputs": [torch.ones(1, 2, 2)]})["inputs"].is_cuda
    assert preprocessor.cpu().device.type == "cpu"


def images(*sizes: tuple[int, int], channels: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (channels, *size), dtype=torch.uint8, generator=generator)
        for size in sizes
    ]


@pytest.mark.parametrize("sizes", [[(2, 3), (2, 3)], [(2, 3), (5, 1)], [(4, 4)]])
@pytest.mark.parametrize("swap", [{}, {"bgr_to_rgb": True}, {"rgb_to_bgr": True}])
def test_images_are_swapped_normalized_padded_and_stacked(sizes: list, swap: dict) -> None:
    mean, std = [1.0, 2.0, 3.0], [2.0, 4.0, 8.0]
    preprocessor = ImgDataPreprocessor(mean, std, pad_size_divisor=4, pad_value=7, **swap)
    inputs = images(*sizes)
    batch = preprocessor({"inputs": inputs})["inputs"]
    height = -(-max(size[0] for size in sizes) // 4) * 4
    width = -(-max(size[1] for size in sizes) // 4) * 4
    expected = torch.full((len(sizes), 3, height, width), 7.0)
    for image, slot in zip(inputs, expected, strict=True):
        channels = image.flip(0) if swap else image
        shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        slot[:, : image.shape[1], : image.shape[2]] = (channels.float() - shift) / scale
    assert torch.equal(batch, expected)
    if len(set(sizes)) == 1:
        stacked = {"inputs": torch.stack(inputs), "data_samples": [1]}
        again = preprocessor(stacked)
        assert torch.equal(again["inputs"], expected)
        assert again["data_samples"] == [1]
        assert stacked["inputs"].dtype == torch.uint8


def test_without_settings_images_become_float() -> None:
    data = ImgDataPreprocessor()({"inputs": images((2, 2), channels=5), "note": "kept"})
    assert data["inputs"].dtype == torch.float32
    assert data["data_samples"] is None
    assert data["note"] == "kept"


def test_one_mean_serves_any_number_of_channels() -> None:
    (image,) = images((2, 2))
    batch = ImgDataPreprocessor([5.0], [2.0])({"inputs": [image]})["inputs"]
    assert torch.equal(batch[0], (image.float() - 5) / 2)


def test_statistics_are_no_part_of_a_checkpoint() -> None:
    preprocessor = MODELS.build(dict(type="ImgDataPreprocessor", mean=[1, 2, 3], std=[1, 1, 1]))
    assert not preprocessor.state_dict()
    assert preprocessor.mean.shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mean": [1]}, "mean and std should be both None or tuple"),
        ({"mean": [1, 2], "std": [1]}, "`mean` should have 1 or 3 values, .* but got 2 values"),
        ({"mean": [1], "std": []}, "`std` should have 1 or 3 values, .* but got 0 values"),
        ({"bgr_to_rgb": True, "rgb_to_bgr": True}, "cannot be set to True at the same time"),
    ],
)
def test_wrong_settings(settings: dict, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        ImgDataPreprocessor(**settings)


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        (3, TypeError, "should be a dict of list/tuple with inputs"),
        ([3], TypeError, "should be a dict of list/tuple with inputs"),
        (torch.ones(3, 2, 2), AssertionError, "should be a NCHW tensor or a list of tensor"),
        ([torch.ones(1, 2, 2)] * 2, AssertionError, r"should in shape of \(3, H, W\)"),
        ([], AssertionError, "could not be an empty list"),
    ],
)
def test_wrong_inputs(inputs: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ImgDataPreprocessor([1, 2, 3], [1, 1, 1])({"inputs": inputs})
