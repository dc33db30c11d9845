"""The rules, code paths and small models that the tests of the fused optimizers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fasttrain import native
from fasttrain.core import fused

PATHS = ["fallback", *(native.module().cpu_paths() if native.available() else ())]
SHAPES = [(7,), (33, 65), (), (0,), (1,), (4, 3, 3, 3), (20_001,)]


@dataclass(frozen=True)
class Case:
    """A fused optimizer, arguments for it, and the optimizer it must agree with."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> type[torch.optim.Optimizer]:
        return getattr(fused, self.name)

    def theirs(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        theirs = getattr(torch.optim, self.name, None)
        if theirs is None:
            return self.ours(params, fused=False, **self.kwargs)
        return theirs(params, foreach=False, **self.kwargs)

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.kwargs.items())])


CASES = [
    Case("SGD", {"lr": 0.1}),
    Case("SGD", {"lr": 0.1, "weight_decay": 0.01, "maximize": True}),
    Case("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    Case("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.3}),
    Case("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    Case("Adam", {"lr": 0.01}),
    Case("Adam", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    Case("AdamW", {"lr": 0.01}),
    Case("AdamW", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True, "maximize": True}),
    Case("Adagrad", {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.01}),
    Case("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.1}),
    Case("RMSprop", {"lr": 0.01, "weight_decay": 0.01, "eps": 1e-4}),
    Case("RMSprop", {"lr": 0.01, "momentum": 0.9, "eps": 1e-4}),
    Case("RMSprop", {"lr": 0.01, "centered": True, "eps": 1e-2}),
    Case("RMSprop", {"lr": 0.01, "centered": True, "eps": 1e-2, "momentum": 0.9, "maximize": True}),
    Case("Lion", {"lr": 0.001, "weight_decay": 0.1}),
    Case("LAMB", {"lr": 0.01, "weight_decay": 0.1}),
    Case("LAMB", {"lr": 0.01, "bias_correction": False, "maximize": True}),
]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """Every rule with its options."""
    return request.param


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every code path: the pure-torch fallback and each CPU instruction set."""
    if request.param == "fallback":
        monkeypatch.setenv("FASTTRAIN_NATIVE", "0")
    else:
        monkeypatch.setenv("FASTTRAIN_NATIVE", "1")
        monkeypatch.setenv("FASTTRAIN_CPU_PATH", request.param)
    return request.param


@pytest.fixture
def native_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native passes on their best path; skips where they were not built."""
    if not native.available():
        pytest.skip("the compiled module is not there")
    monkeypatch.setenv("FASTTRAIN_NATIVE", "1")


def make_params(
    shapes: list[tuple[int, ...]] | None = None, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for shape in (SHAPES if shapes is None else shapes)
    ]


def set_grads(params: list[nn.Parameter], step: int, scale: float = 1.0) -> None:
    """The same random gradients for the same step, whatever the dtype."""
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        grad = torch.randn(param.shape, generator=generator, dtype=torch.float32) * scale
        param.grad = grad.to(param.dtype)


def assert_close(
    actual: list[nn.Parameter], expected: list[Tensor], rtol: float, atol: float
) -> None:
    for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
        torch.testing.assert_close(
            left.detach().double(),
            right.detach().double(),
            rtol=rtol,
            atol=atol,
            msg=lambda text, index=index: f"parameter {index}: {text}",
        )


@pytest.fixture(name="make_params")
def _make_params() -> Callable[..., list[nn.Parameter]]:
    return make_params


@pytest.fixture(name="set_grads")
def _set_grads() -> Callable[..., None]:
    return set_grads


@pytest.fixture(name="assert_close")
def _assert_close() -> Callable[..., None]:
    return assert_close
