"""Every rule in every precision, 100 scaled and clipped steps long, against float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fasttrain import native
from fasttrain.core.fused.options import MASTER
from fasttrain.core.fused.shadow import join_halves
from support import assert_same

STEPS, SCALE, DIVISOR, MAX_NORM = 100, 256.0, 4.0, 2.0
SHAPES = [(33, 5), (0,), (), (130,)]
CLIP = SimpleNamespace(type="norm", max_norm=MAX_NORM, norm_type=2.0, error_if_nonfinite=False)


@dataclass(frozen=True)
class Storage:
    """How parameters and moments are stored, and what 100 steps may cost in accuracy.

    Attributes:
        error: what a weight may be off, over the distance that it went from its start (of all
            weights: the root of the mean square).
    """

    name: str
    dtype: torch.dtype
    error: float
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        return self.name


BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
STORAGES = [
    Storage("fp32", FP32, 5e-5, {}),
    Storage("bf16-master", BF16, 5e-5, {"master_weights": True}),
    Storage("bf16-split", BF16, 5e-5, {"master_weights": "split"}),
    Storage("fp16-master", FP16, 5e-5, {"master_weights": True}),
    Storage("fp32-bf16-state", FP32, 0.01, {"state_dtype": BF16}),
    Storage(
        "bf16-all", BF16, 0.01,
        {"master_weights": "split", "state_dtype": BF16, "stochastic_rounding": True, "seed": 3},
    ),
    Storage("fp16-state", FP16, 2e-3, {"master_weights": True, "state_dtype": FP16}),
]  # fmt: skip


def params_of(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]


def gradient(index: int, step: int, dtype: torch.dtype) -> Tensor:
    """Scaled, and the sum over several batches: one value in `dtype`, whoever reads it."""
    generator = torch.Generator().manual_seed(1000 * step + index)
    grad = torch.randn(SHAPES[index], generator=generator) + 0.5
    return grad.mul_(SCALE * DIVISOR / 16).to(dtype)


def masters(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> list[Tensor]:
    """The weights as the optimizer knows them."""
    found = []
    for param in params:
        master = optimizer.state[param].get(MASTER)
        if master is not None and master.dtype is torch.int16:
            master = join_halves(param.detach(), master)
        found.append(param.detach() if master is None else master)
    return found


def train(optimizer: Any, params: list[nn.Parameter], steps: int, start: int = 0) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=10_000)
    scaler.scale(torch.ones(()))
    for step in range(start, start + steps):
        for index, param in enumerate(params):
            param.grad = gradient(index, step, param.dtype)
        optimizer.fused_step(scaler=scaler, clip=CLIP, divisor=DIVISOR, zero=True)
        scaler.update()


def train_in_float64(case: Any, start: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The reference: each part by itself, on the very gradients, in double precision."""
    params = [nn.Parameter(p.detach().double()) for p in start]
    optimizer = case.theirs(params)
    for step in range(STEPS):
        for index, param in enumerate(params):
            param.grad = gradient(index, step, dtype).double() / (SCALE * DIVISOR)
        torch.nn.utils.clip_grad_norm_([p for p in params if p.numel()], MAX_NORM)
        optimizer.step()
    return [p.detach() for p in params]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


@pytest.mark.parametrize("storage", STORAGES, ids=str)
@pytest.mark.parametrize("switch", ["0", "1"], ids=["fallback", "native"])
def test_100_steps(
    case: Any, storage: Storage, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if switch == "1" and not native.available():
        pytest.skip("the compiled module is not there")
    if storage.name == "fp16-state" and case.name == "LAMB":
        pytest.skip("LAMB's second moment underflows in float16")
    monkeypatch.setenv("FASTTRAIN_NATIVE", switch)
    params = params_of(storage.dtype)
    before = [p.detach().clone() for p in params]
    optimizer = case.ours(params, **case.kwargs, **storage.kwargs)
    train(optimizer, params, STEPS)
    exact = flat(train_in_float64(case, before, storage.dtype))
    ours = flat(masters(optimizer, params))
    error = (ours - exact).square().mean().sqrt() / (exact - flat(before)).square().mean().sqrt()
    # torch makes Adagrad's sums with the optimizer, in the parameter's precision.
    rounded = "initial_accumulator_value" in case.kwargs and storage.dtype is not FP32
    assert float(error) <= max(storage.error, 3e-4 if rounded else 0.0)
    for param, master in zip(params, masters(optimizer, params), strict=True):
        eps = torch.finfo(param.dtype).eps
        torch.testing.assert_close(param.detach().float(), master.float(), rtol=eps, atol=1e-7)


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_instruction_sets_give_the_same_bits(
    case: Any, storage: Storage, native_path: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name in native.module().cpu_paths():
        monkeypatch.setenv("FASTTRAIN_CPU_PATH", name)
        params = params_of(storage.dtype)
        optimizer = case.ours(params, **case.kwargs, **storage.kwargs)
        train(optimizer, params, 4)
        results.append([masters(optimizer, params), copy.deepcopy(optimizer.state_dict()["state"])])
    for other in results[1:]:
        assert_same(results[0], other)
