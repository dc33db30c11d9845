"""Functions that fill weights: torch's numbers, and only where a module has the part."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.model import (
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)
from fasttrain.model.weight_init import trunc_normal_


def values(module: nn.Module) -> list[float]:
    return [param.flatten()[0].item() for param in module.parameters()]


def seeded(fill: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The weight of a fresh Linear after `fill(module)` from a fixed seed."""
    torch.manual_seed(0)
    layer = nn.Linear(40, 30)
    torch.manual_seed(1)
    fill(layer, *args, **kwargs)
    assert layer.bias.tolist() == [0.0] * 30
    return layer.weight.detach()


def torchs(fill: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    torch.manual_seed(1)
    return fill(torch.empty(30, 40), *args, **kwargs)


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        ((constant_init, 3), (nn.init.constant_, 3)),
        ((normal_init, 1, 0.5), (nn.init.normal_, 1, 0.5)),
        ((uniform_init, -1, 3), (nn.init.uniform_, -1, 3)),
        ((trunc_normal_init, 0, 2, -1, 1), (nn.init.trunc_normal_, 0, 2, -1, 1)),
        ((xavier_init, 2), (nn.init.xavier_normal_, 2)),
        ((xavier_init, 2, 0, "uniform"), (nn.init.xavier_uniform_, 2)),
        ((kaiming_init,), (nn.init.kaiming_normal_, 0, "fan_out", "relu")),
        (
            (kaiming_init, 1, "fan_in", "leaky_relu", 0, "uniform"),
            (nn.init.kaiming_uniform_, 1, "fan_in", "leaky_relu"),
        ),
        ((caffe2_xavier_init,), (nn.init.kaiming_uniform_, 1, "fan_in", "leaky_relu")),
    ],
    ids=lambda pair: pair[0].__name__,
)
def test_functions_fill_as_torch_does(ours: tuple, reference: tuple) -> None:
    assert torch.equal(seeded(*ours), torchs(*reference))


def test_missing_parts_are_skipped() -> None:
    for module in (nn.ReLU(), nn.BatchNorm1d(2, affine=False)):
        constant_init(module, 1, bias=2)
    without_bias = nn.Linear(1, 1, bias=False)
    constant_init(without_bias, 4)
    assert values(without_bias) == [4.0]


def test_unknown_distribution() -> None:
    with pytest.raises(AssertionError, match="must be uniform or normal, got cauchy"):
        xavier_init(nn.Linear(1, 1), distribution="cauchy")


def test_bias_for_a_probability() -> None:
    assert 1 / (1 + math.exp(-bias_init_with_prob(0.01))) == pytest.approx(0.01)


def test_truncated_normal_stays_inside() -> None:
    drawn = trunc_normal_(torch.empty(1000), mean=0.5, std=2.0, a=-1.0, b=1.0)
    assert drawn.min() >= -1
    assert drawn.max() <= 1
