"""Under torch.compile: a step is one opaque call, and a new learning rate compiles nothing anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.compiled_autograd import _enable
from torch._dynamo.utils import counters

from fasttrain.core import fused
from fasttrain.core.precision import Precision
from fasttrain.core.update import GradClip, Updater
from support import assert_same

CLIP = GradClip(max_norm=0.1)
NUM_ITERS = 20


def make_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)


def batch(index: int) -> Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(index))


def set_lr(optimizer: torch.optim.Optimizer, index: int) -> None:
    optimizer.param_groups[0]["lr"] = 0.01 / (1 + index)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


@pytest.fixture(autouse=True)
def strict_compiler() -> Iterator[None]:
    """A compiler without memory of other tests, for which compiling anything twice is an error."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


def train(
    forward: Callable[[Tensor], Tensor], model: nn.Module, optimizer: Any, **kwargs: Any
) -> list[Tensor]:
    """Train `model`, whose forward may be compiled, at a rate that changes in each iteration."""
    updater = Updater(optimizer, **kwargs)
    updater.begin(0, NUM_ITERS)
    for index in range(NUM_ITERS):
        set_lr(optimizer, index)
        x = batch(index).to(next(model.parameters()).dtype)
        updater.update(forward(x).square().mean())
    return weights(model)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clip": {"clip": CLIP},
    "scaled": {"clip": CLIP, "fp16": True},
    "accumulation": {"clip": CLIP, "accumulation": 3},
    "overlap": {"clip": CLIP, "overlap_norm": True},
    "overlap_accumulation": {"clip": CLIP, "accumulation": 3, "overlap_norm": True},
    "zeroed": {"clip": CLIP, "set_to_none": False},
    "sums": {"clip": CLIP, "accumulation": 3, "accumulate_in_fp32": True, "dtype": torch.bfloat16},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_trains_as_an_eager_one(
    native_path: None, backend: str, variant: str
) -> None:
    results = []
    for compiled in (False, True):
        kwargs = dict(VARIANTS[variant])
        precision = Precision("fp16" if kwargs.pop("fp16", False) else "fp32")
        model = make_model(kwargs.pop("dtype", torch.float32))
        forward = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        optimizer = fused.AdamW(model.parameters(), lr=0.01, master_weights=True)
        results.append(train(forward, model, optimizer, precision=precision, **kwargs))
    assert_same(results[0], results[1])
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_compiled_to_machine_code(native_path: None) -> None:
    results = []
    for compiled in (False, True):
        model = make_model()
        forward = torch.compile(model, fullgraph=True) if compiled else model
        results.append(train(forward, model, fused.AdamW(model.parameters()), clip=CLIP))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


def by_step(optimizer: Any) -> None:
    optimizer.step()


def by_fused_step(optimizer: Any) -> Any:
    return optimizer.fused_step(clip=CLIP)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "LAMB"])
@pytest.mark.parametrize("method", [by_step, by_fused_step])
def test_a_step_within_a_compiled_function_is_one_call(
    path: str, name: str, method: Callable[[Any], Any]
) -> None:
    def iteration(model: nn.Module, optimizer: Any, x: Tensor) -> Tensor:
        model(x).square().mean().backward()
        method(optimizer)
        optimizer.zero_grad()
        return x + 1.0

    results = []
    for run in (iteration, torch.compile(iteration, backend="eager")):
        model = make_model()
        optimizer = getattr(fused, name)(model.parameters(), lr=0.01)
        for index in range(NUM_ITERS):
            set_lr(optimizer, index)
            run(model, optimizer, batch(index))
        results.append(weights(model))
    assert_same(results[0], results[1])
    # The forward and what follows the calls: no graph was made of the inside of a step.
    assert counters["stats"]["unique_graphs"] <= 2
    for reason in counters["graph_break"]:
        assert "fasttrain._C" not in reason and "binding" not in reason, reason


def test_hooks_of_a_backward_within_a_compiled_function(native_path: None) -> None:
    def iteration(model: nn.Module, x: Tensor) -> None:
        model(x).square().mean().backward()

    results = []
    for run in (iteration, torch.compile(iteration, backend="eager")):
        model = make_model()
        optimizer = fused.AdamW(model.parameters())
        overlap = optimizer.enable_overlap_norm()
        for index in range(5):
            run(model, batch(index))
            assert overlap.collect(list(model.parameters())) > 0.0
            optimizer.fused_step(clip=CLIP)
            optimizer.zero_grad()
        results.append(weights(model))
    assert_same(results[0], results[1])
    assert counters["stats"]["unique_graphs"] == 1


def test_a_closure_may_call_a_compiled_model(path: str) -> None:
    results = []
    for compiled in (False, True):
        model = make_model()
        forward = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        optimizer = fused.SGD(model.parameters(), lr=0.01)

        def closure(x: Tensor, forward: Any = forward, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = forward(x).square().mean()
            loss.backward()
            return loss

        for index in range(5):
            set_lr(optimizer, index)
            optimizer.step(lambda index=index, closure=closure: closure(batch(index)))
        results.append(weights(model))
    assert_same(results[0], results[1])
    assert counters["stats"]["unique_graphs"] == 1


def test_torchs_scaler_and_scheduler_see_a_step_within(path: str) -> None:
    """Both look at `optimizer.step`: its signature, and whether it was called."""
    model = make_model()
    optimizer = fused.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    @torch.compile(backend="eager")
    def forward(x: Tensor) -> Tensor:
        return model(x).square().mean()

    for index in range(3):
        scaler.scale(forward(batch(index))).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert all(float(state["step"]) == 3.0 for state in optimizer.state.values())
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("variant", ["clip", "overlap", "sums"])
def test_a_compiled_backward(native_path: None, variant: str) -> None:
    """Compiled autograd traces backward and its hooks; the step stays outside."""
    results = []
    for compiled in (False, True):
        kwargs = dict(VARIANTS[variant])
        model = make_model(kwargs.pop("dtype", torch.float32))
        optimizer = fused.AdamW(model.parameters(), master_weights=True)
        traced = _enable(partial(torch.compile, backend="eager")) if compiled else nullcontext()
        with torch._dynamo.config.patch(error_on_recompile=False), traced:
            results.append(train(model, model, optimizer, **kwargs))
    assert_same(results[0], results[1])
    assert counters["compiled_autograd"]["captures"] >= 1
