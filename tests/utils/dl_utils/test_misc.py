"""Kinds of layers."""

import pytest
from torch import nn

from fasttrain.utils.dl_utils import has_batch_norm, is_norm


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
