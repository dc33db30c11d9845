"""Kinds of layers."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from fasttrain.utils.dl_utils import has_batch_norm, is_norm, mmcv_full_available, tensor2imgs


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(2), nn.SyncBatchNorm(2), nn.InstanceNorm2d(2), nn.GroupNorm(1, 2),
     nn.LayerNorm(2)],
)  # fmt: skip
def test_is_norm(layer):
    assert is_norm(layer)
    assert not is_norm(layer, exclude=type(layer))
    assert not is_norm(layer, exclude=(nn.Conv2d, type(layer)))


def test_is_no_norm():
    assert not is_norm(nn.Conv2d(1, 1, 1))
    with pytest.raises(TypeError, match='"exclude" must be either None or type or a tuple of'):
        is_norm(nn.BatchNorm1d(2), exclude="BatchNorm1d")


def test_has_batch_norm():
    assert has_batch_norm(nn.Sequential(nn.ReLU(), nn.Sequential(nn.BatchNorm1d(2))))
    assert not has_batch_norm(nn.Sequential(nn.LayerNorm(2)))


def test_mmcv_full_available(monkeypatch, tmp_path):
    assert mmcv_full_available() is False
    package = types.ModuleType("mmcv")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "mmcv", package)
    assert mmcv_full_available() is False
    (tmp_path / "_ext.py").write_text("")
    assert mmcv_full_available() is True


def test_tensor2imgs_undoes_the_normalization():
    tensor = torch.arange(24.0).reshape(2, 3, 2, 2)
    first, second = tensor2imgs(tensor, mean=(1, 2, 3), std=(2, 3, 4))
    assert first.shape == (2, 2, 3) and first.dtype == np.float32 and first.flags["C_CONTIGUOUS"]
    assert first[0, 1].tolist() == [9 * 4 + 3, 5 * 3 + 2, 1 * 2 + 1]
    assert second[0, 0].tolist() == [20 * 4 + 3, 16 * 3 + 2, 12 * 2 + 1]
    assert tensor2imgs(tensor, to_bgr=False)[0][0, 0].tolist() == [0, 4, 8]
    assert tensor2imgs(tensor[:, :1], to_bgr=False)[0].shape == (2, 2, 1)


@pytest.mark.parametrize(
    ("tensor", "options", "text"),
    [
        (np.zeros((1, 3, 2, 2)), {}, "expected a tensor of shape"),
        (torch.zeros(3, 2, 2), {}, "expected a tensor of shape"),
        (torch.zeros(1, 2, 2, 2), {}, "1 or 3 channels, got 2"),
        (torch.zeros(1, 3, 2, 2), {"mean": (1,)}, "for each of 3 channels"),
        (torch.zeros(1, 1, 2, 2), {}, "pass to_bgr=False"),
    ],
)
def test_tensor2imgs_of_something_else(tensor, options, text):
    with pytest.raises(AssertionError, match=text):
        tensor2imgs(tensor, **options)
