"""Any table: every size at every alignment, every position, frozen layers, random structures."""

from __future__ import annotations

import copy
import os
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fasttrain import native
from fasttrain.core import fused
from fasttrain.core.update import GradClip, Updater
from support import assert_same

CLIP = SimpleNamespace(type="norm", max_norm=0.5, norm_type=2.0, error_if_nonfinite=False)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def make_scaler(scale: float) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.ones(()))
    return scaler


# ------------------------------------------------------------------------- sizes and alignments
GUARD = 77.0


class Room:
    """One block of memory that holds many tensors, with a guard element before and behind each."""

    def __init__(self, sizes: list[int], dtype: torch.dtype, offset: int) -> None:
        self.block = torch.full((offset + sum(size + 1 for size in sizes) + 1,), GUARD).to(dtype)
        self.guards = torch.ones(self.block.shape, dtype=torch.bool)
        self.views: list[Tensor] = []
        start = offset + 1
        for size in sizes:
            self.views.append(self.block[start : start + size])
            self.guards[start : start + size] = False
            start += size + 1

    def fill(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for view in self.views:
            view.copy_(torch.randn(view.shape, generator=generator))

    def assert_guarded(self) -> None:
        assert bool((self.block[self.guards] == GUARD).all()), "a neighbour was written"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_every_size_at_every_alignment(
    path: str, name: str, dtype: torch.dtype, assert_close: Any
) -> None:
    """Parameters and gradients are views that start anywhere; nothing around them changes."""
    sizes = [*range(70), 16_383, 16_384, 16_385]
    weights, grads = Room(sizes, dtype, 0), Room(sizes, dtype, 0)
    weights.fill(1), grads.fill(2)
    exact = [nn.Parameter(v.float()) for v in weights.views]
    for param, grad in zip(exact, grads.views, strict=True):
        param.grad = grad.float()
    getattr(fused, name)(exact, lr=0.01, fused=False).step()
    for offset in (0, 3, 10):
        weights, grads = Room(sizes, dtype, offset), Room(sizes, dtype, 15 - offset)
        weights.fill(1), grads.fill(2)
        params = [nn.Parameter(view) for view in weights.views]
        for param, grad in zip(params, grads.views, strict=True):
            param.grad = grad
        getattr(fused, name)(params, lr=0.01, master_weights=True).fused_step(zero=True)
        weights.assert_guarded(), grads.assert_guarded()
        assert not any(bool(view.any()) for view in grads.views)
        eps = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
        assert_close(params, exact, rtol=eps, atol=1e-6)


# ------------------------------------------------------------------------- non-finite gradients
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("clip", [None, CLIP], ids=["check", "norm"])
def test_a_non_finite_gradient_at_each_position(path: str, dtype: torch.dtype, clip: Any) -> None:
    """Each element of a small table in turn, and those at the seams of a tensor cut in pieces."""
    large = 20_000
    sizes = [3, 17, 1, 0, 45, large]
    params = [nn.Parameter(torch.ones(size).to(dtype)) for size in sizes]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = fused.AdamW(params, lr=0.01)
    optimizer.step()
    before = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state_dict())
    seams = [s + d for s in range(4096, large, 4096) for d in (-1, 0)] + [0, large - 1]
    every = [(p, i) for p in params[:-1] for i in range(p.numel())]
    spots = every + [(params[-1], i) for i in seams]
    for number, (param, index) in enumerate(spots):
        bad = (float("nan"), float("inf"), -float("inf"))[number % 3]
        scaler = make_scaler(8.0)
        for p in params:
            p.grad = torch.ones_like(p)
        assert param.grad is not None
        param.grad[index] = bad
        optimizer.fused_step(scaler=scaler, clip=clip)
        scaler.update()
        assert scaler.get_scale() == 4.0, f"{tuple(param.shape)}[{index}] = {bad} was not noticed"
    assert_same(before, [p.detach() for p in params])
    assert_same(state, optimizer.state_dict())


# ------------------------------------------------------------------------------- frozen layers
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_layers_frozen_and_unfrozen_on_the_way(
    path: str, name: str, set_to_none: bool, assert_close: Any
) -> None:
    kwargs = {"lr": 0.05} | ({"momentum": 0.9} if name == "SGD" else {})

    def train(make: Any) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 2))
        model[2].requires_grad_(False)  # thawed later: has no state until then
        optimizer = make(model.parameters(), **kwargs)
        updater = Updater(optimizer, clip=GradClip(max_norm=0.5), set_to_none=set_to_none)
        for step in range(12):
            if step == 4:
                model[0].requires_grad_(False)
                model[2].requires_grad_(True)
            if step == 8:
                model[0].requires_grad_(True)
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            updater.update(model(x).square().mean())
        return model

    ours, theirs = train(getattr(fused, name)), train(getattr(torch.optim, name))
    assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------- random structures
# Smooth ones: with a tiny eps, as in Lion, the last bit of a small gradient can turn a step around.
RULES: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    **{name: {"eps": 1e-2} for name in ("Adam", "AdamW", "Adagrad", "RMSprop", "LAMB")},
}
group_strategy = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(0, 300), min_size=0, max_size=4),
        "dtype": st.sampled_from(DTYPES),
        "lr": st.floats(1e-4, 0.05),
        "weight_decay": st.floats(0, 0.1),
        "maximize": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    master=st.sampled_from([True, "split"]),
    groups=st.lists(group_strategy, min_size=1, max_size=4).filter(
        lambda groups: any(g["sizes"] for g in groups)
    ),
    late=group_strategy,
    missing=st.sets(st.integers(0, 40)),
    bad_step=st.none() | st.integers(0, 4),
    clip=st.sampled_from([None, CLIP]),
    zero=st.booleans(),
)
def test_any_structure_steps_as_composed_parts_in_float32(
    rule: str,
    master: bool | str,
    groups: list[dict[str, Any]],
    late: dict[str, Any],
    missing: set[int],
    bad_step: int | None,
    clip: Any,
    zero: bool,
) -> None:
    """Mixed dtypes, gradients that come and go, a group that comes later, a skipped step."""

    def group_of(spec: dict[str, Any], seed: int, ours: bool) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        values = [torch.randn(n, generator=generator).to(spec["dtype"]) for n in spec["sizes"]]
        if not ours:
            values = [v.float() for v in values]
        kept = {k: v for k, v in spec.items() if k not in ("sizes", "dtype")}
        return {**kept, "params": [nn.Parameter(v) for v in values]}

    def train(ours: bool) -> tuple[list[Tensor], list[float]]:
        with mock.patch.dict(os.environ, FASTTRAIN_NATIVE=str(int(ours))):
            own = [group_of(spec, index, ours) for index, spec in enumerate(groups)]
            dtypes = [spec["dtype"] for spec in [*groups, late] for _ in spec["sizes"]]
            optimizer = getattr(fused, rule)(own, lr=0.01, master_weights=master, **RULES[rule])
            scaler = make_scaler(64.0)
            for step in range(5):
                if step == 3:
                    optimizer.add_param_group(group_of(late, 99, ours))
                params = [p for group in optimizer.param_groups for p in group["params"]]
                generator = torch.Generator().manual_seed(step)
                for index, param in enumerate(params):
                    grad = torch.randn(param.shape, generator=generator).mul_(64.0)
                    if step == bad_step and index == 0:
                        grad.fill_(float("inf"))
                    absent = (7 * index + step) in missing
                    param.grad = None if absent else grad.to(dtypes[index]).to(param.dtype)
                optimizer.fused_step(scaler=scaler, clip=clip, divisor=2.0, zero=zero)
                scaler.update()
                if zero:
                    assert not any(bool(p.grad.any()) for p in params if p.grad is not None)
            steps = [float(optimizer.state.get(p, {}).get("step", 0.0)) for p in params]
        return [p.detach() for p in params], [*steps, scaler.get_scale()]

    if not native.available():
        pytest.skip("the compiled module is not there")
    (ours, ours_counts), (composed, composed_counts) = train(True), train(False)
    assert ours_counts == composed_counts
    for left, right in zip(ours, composed, strict=True):
        eps = torch.finfo(left.dtype).eps if left.dtype != torch.float32 else 1e-4
        torch.testing.assert_close(left.float(), right, rtol=eps, atol=1e-5)
