"""Functions that initialize the weight and the bias of one module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

trunc_normal_ = nn.init.trunc_normal_


def _init_parts(module: nn.Module, init_weight: Callable[[Tensor], Any], bias: float) -> None:
    """Apply `init_weight` to the weight and fill the bias, where the module has them."""
    if getattr(module, "weight", None) is not None:
        init_weight(module.weight)  # type: ignore[arg-type]
    if getattr(module, "bias", None) is not None:
        nn.init.constant_(module.bias, bias)  # type: ignore[arg-type]


def constant_init(module: nn.Module, val: float, bias: float = 0) -> None:
    """Fill the weight with `val`."""
    _init_parts(module, lambda weight: nn.init.constant_(weight, val), bias)


def xavier_init(
    module: nn.Module, gain: float = 1, bias: float = 0, distribution: str = "normal"
) -> None:
    """Xavier (Glorot) initialization, 'uniform' or 'normal'."""
    fill = _of_distribution(distribution, nn.init.xavier_uniform_, nn.init.xavier_normal_)
    _init_parts(module, lambda weight: fill(weight, gain=gain), bias)


def normal_init(module: nn.Module, mean: float = 0, std: float = 1, bias: float = 0) -> None:
    """Normal distribution."""
    _init_parts(module, lambda weight: nn.init.normal_(weight, mean, std), bias)


def trunc_normal_init(
    module: nn.Module, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, bias: float = 0
) -> None:
    """Normal distribution, redrawn into [a, b]."""
    _init_parts(module, lambda weight: trunc_normal_(weight, mean, std, a, b), bias)


def uniform_init(module: nn.Module, a: float = 0, b: float = 1, bias: float = 0) -> None:
    """Uniform distribution on [a, b]."""
    _init_parts(module, lambda weight: nn.init.uniform_(weight, a, b), bias)


def kaiming_init(
    module: nn.Module,
    a: float = 0,
    mode: str = "fan_out",
    nonlinearity: str = "relu",
    bias: float = 0,
    distribution: str = "normal",
) -> None:
    """Kaiming (He) initialization, 'uniform' or 'normal'; `a` is the slope below zero."""
    fill: Any = _of_distribution(distribution, nn.init.kaiming_uniform_, nn.init.kaiming_normal_)
    _init_parts(
        module, lambda weight: fill(weight, a=a, mode=mode, nonlinearity=nonlinearity), bias
    )


def caffe2_xavier_init(module: nn.Module, bias: float = 0) -> None:
    """Caffe2's XavierFill: uniform with variance 1 / fan_in."""
    kaiming_init(
        module, a=1, mode="fan_in", nonlinearity="leaky_relu", bias=bias, distribution="uniform"
    )


def bias_init_with_prob(prior_prob: float) -> float:
    """The bias from which a sigmoid gives `prior_prob`."""
    return -math.log((1 - prior_prob) / prior_prob)


def _of_distribution(name: str, uniform: Any, normal: Any) -> Any:
    assert name in ("uniform", "normal"), f"distribution must be uniform or normal, got {name}"
    return uniform if name == "uniform" else normal
