"""Accumulation in float32 and zeroing in the step, through the optimizer wrappers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from fasttrain import native
from fasttrain.core import fused
from fasttrain.core.precision import Precision
from fasttrain.core.update import GradClip, Updater
from fasttrain.logging import MessageHub
from fasttrain.optim import AmpOptimWrapper, OptimWrapper
from fasttrain.optim.scheduler import LinearLR, StepLR
from rank_processes import run_on_two_ranks
from support import assert_same

COUNT = 8
NUM_ITERS = 2 * COUNT + 3


@pytest.fixture(autouse=True)
def hub(request: pytest.FixtureRequest) -> MessageHub:
    return MessageHub.get_instance(f"accumulation {request.node.name}")


def make_model(dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)).to(dtype)


def loss_of(model: nn.Module, index: int) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    dtype = next(model.parameters()).dtype
    loss: Tensor = (model(torch.randn(5, 16, generator=generator).to(dtype)).float() - 3).square()
    return loss.mean()


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


def by_hand(max_norm: float | None, num_iters: int = NUM_ITERS, scale: float = 1.0) -> nn.Module:
    """SGD on a float32 master, fed by float32 sums of bfloat16 gradients."""
    model = make_model()
    masters = [nn.Parameter(p.detach().float()) for p in model.parameters()]
    optimizer = torch.optim.SGD(masters, lr=0.1)
    for index in range(num_iters):
        size = COUNT if index < num_iters - num_iters % COUNT else num_iters % COUNT
        own = torch.autograd.grad(loss_of(model, index) / size * scale, list(model.parameters()))
        for master, grad in zip(masters, own, strict=True):
            master.grad = grad.float() if master.grad is None else master.grad + grad.float()
        if (index + 1) % COUNT == 0 or index + 1 == num_iters:
            for master in masters:
                assert master.grad is not None
                master.grad /= scale
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(masters, max_norm)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for param, master in zip(model.parameters(), masters, strict=True):
                    param.copy_(master)
    return model


def make_updater(optimizer: Any, max_norm: float | None, scale: float | None) -> Updater:
    precision = Precision() if scale is None else Precision("fp16", loss_scale=scale)
    clip = None if max_norm is None else GradClip(max_norm=max_norm)
    return Updater(
        optimizer, precision=precision, clip=clip, accumulation=COUNT, accumulate_in_fp32=True
    )


def make_wrapper(optimizer: Any, max_norm: float | None, scale: float | None) -> OptimWrapper:
    kwargs: dict[str, Any] = {
        "clip_grad": None if max_norm is None else {"max_norm": max_norm},
        "accumulative_counts": COUNT,
        "accumulate_in_fp32": True,
    }
    if scale is None:
        return OptimWrapper(optimizer, **kwargs)
    return AmpOptimWrapper(optimizer=optimizer, loss_scale=scale, **kwargs)


@pytest.mark.parametrize("scale", [None, 64.0])
@pytest.mark.parametrize("max_norm", [None, 0.2])
@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("make", [make_updater, make_wrapper])
def test_trains_as_buffers_made_by_hand(
    make: Callable[..., Any], native: str, max_norm: float | None, scale: float | None, monkeypatch
) -> None:
    monkeypatch.setenv("FASTTRAIN_NATIVE", native)
    model, reference = make_model(), by_hand(max_norm, scale=scale or 1.0)
    optimizer = fused.SGD(model.parameters(), lr=0.1, master_weights=True)
    part = make(optimizer, max_norm, scale)
    if isinstance(part, Updater):
        part.begin(0, NUM_ITERS)
        update: Any = part.update
    else:
        part.initialize_count_status(model, 0, NUM_ITERS)
        update = part.update_params
    for index in range(NUM_ITERS):
        update(loss_of(model, index))
        assert all(p.grad is None for p in model.parameters())
    for mine, expected in zip(weights(model), weights(reference), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0.01, atol=2e-3)


@pytest.mark.parametrize("make", [make_updater, make_wrapper])
def test_other_optimizers_get_the_sums_for_clip_and_step(make: Callable[..., Any]) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    part = make(optimizer, 1e-3, None)
    seen = []
    optimizer.register_step_pre_hook(
        lambda *a: seen.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
    )
    for index in range(COUNT):
        (part.update_params if isinstance(part, OptimWrapper) else part.update)(
            loss_of(model, index)
        )
    ((*grads,),) = seen
    norm = torch.linalg.vector_norm(torch.cat([g.float().flatten() for g in grads]))
    assert float(norm) == pytest.approx(1e-3, rel=0.01)
    assert all(p.grad is None for p in model.parameters())


def test_an_overridden_step_sees_gradients() -> None:
    seen = []

    class Watching(OptimWrapper):
        def step(self, **kwargs: Any) -> None:
            params = self.optimizer.param_groups[0]["params"]
            seen.append([p.grad is not None and p.grad.dtype for p in params])
            super().step(**kwargs)

    model = make_model()
    before = weights(model)[0].clone()
    wrapper = Watching(
        fused.SGD(model.parameters(), lr=0.1), accumulative_counts=2, accumulate_in_fp32=True
    )
    for index in range(2):
        wrapper.update_params(loss_of(model, index))
    assert seen == [[torch.bfloat16] * 4]
    assert not torch.equal(before, weights(model)[0])


def test_without_accumulation_nothing_is_hooked() -> None:
    model = make_model()
    optimizer = fused.SGD(model.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer, accumulate_in_fp32=True)
    assert wrapper._sums is None
    assert Updater(optimizer, accumulate_in_fp32=True).sums is None
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


@pytest.mark.parametrize("kind", [OptimWrapper, AmpOptimWrapper])
def test_float32_parameters_train_as_without(kind: Any) -> None:
    results = []
    for on in (False, True):
        model = make_model(torch.float32)
        optimizer = fused.AdamW(model.parameters(), lr=0.01)
        wrapper = kind(optimizer=optimizer, accumulative_counts=3, accumulate_in_fp32=on)
        wrapper.initialize_count_status(model, 0, 7)
        for index in range(7):
            wrapper.update_params(loss_of(model, index))
        results.append(weights(model))
    assert_same(results[0], results[1])


@pytest.mark.parametrize("kind", [torch.optim.SGD, fused.SGD])
@pytest.mark.parametrize("cut", [COUNT, COUNT + 3])
def test_a_checkpoint_in_mid_group(kind: Any, cut: int) -> None:
    def make() -> tuple[nn.Module, OptimWrapper]:
        model = make_model()
        wrapper = OptimWrapper(
            kind(model.parameters(), lr=0.1, momentum=0.9),
            accumulative_counts=COUNT,
            accumulate_in_fp32=True,
        )
        return model, wrapper

    whole, wrapper = make()
    for index in range(2 * COUNT):
        if index == cut:
            saved = copy.deepcopy((whole.state_dict(), wrapper.state_dict()))
        wrapper.update_params(loss_of(whole, index))
    assert ("gradient_sums" in saved[1]) == (cut % COUNT != 0)
    model, wrapper = make()
    model.load_state_dict(saved[0])
    keys = list(saved[1])
    wrapper.load_state_dict(saved[1])
    assert list(saved[1]) == keys
    wrapper.initialize_count_status(model, cut, 2 * COUNT)
    for index in range(cut, 2 * COUNT):
        wrapper.update_params(loss_of(model, index))
    assert_same(weights(whole), weights(model))


def test_a_checkpoint_in_mid_group_without_the_option() -> None:
    model = make_model()
    wrapper = OptimWrapper(fused.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    state = wrapper.state_dict()
    state["gradient_sums"] = {1: torch.ones(32)}
    wrapper.load_state_dict(state)
    assert_same(list(model.parameters())[1].grad, torch.ones(32).bfloat16())


def test_ddp_reduces_the_whole_sum(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks_sums.py")
    first, second = run_on_two_ranks(script, tmp_path)
    assert first["weights"] == second["weights"]
    assert first["error"] < 0.004  # two roundings and the sum over ranks
    assert first["low_error"] > 2 * float(first["error"])


# -- zeroing in the step ------------------------------------------------------------------------


class Spied(fused.SGD):
    """Notes the one-call steps."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1)
        self.calls: list[Any] = []

    def fused_step(self, **kwargs: Any) -> Any:
        self.calls.append(kwargs)
        return super().fused_step(**kwargs)


def spied_wrapper(kind: Any = OptimWrapper, **kwargs: Any) -> tuple[nn.Module, Spied, OptimWrapper]:
    model = make_model(torch.float32)
    optimizer = Spied(model.parameters())
    return model, optimizer, kind(optimizer=optimizer, **kwargs)


@pytest.mark.parametrize("kind", [OptimWrapper, AmpOptimWrapper])
@pytest.mark.parametrize("clip_grad", [None, {"max_norm": 0.1}])
def test_gradients_are_zeroed_in_the_step(kind: Any, clip_grad: Any) -> None:
    model, optimizer, wrapper = spied_wrapper(kind, clip_grad=clip_grad)
    optimizer.zero_grad = MagicMock()  # type: ignore[method-assign]
    wrapper.update_params(loss_of(model, 0), zero_kwargs={"set_to_none": False})
    assert [call.get("zero") for call in optimizer.calls] == [True]
    optimizer.zero_grad.assert_not_called()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    wrapper.update_params(loss_of(model, 0))
    optimizer.zero_grad.assert_called_once_with()
    assert not any(call.get("zero") for call in optimizer.calls[1:])


def test_zeroed_steps_train_the_same() -> None:
    results = []
    for zero_kwargs in (None, {"set_to_none": False}):
        model, _, wrapper = spied_wrapper(clip_grad={"max_norm": 0.1})
        for index in range(4):
            wrapper.update_params(loss_of(model, index), zero_kwargs=zero_kwargs)
        results.append(weights(model))
    assert_same(results[0], results[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda wrapper: setattr(wrapper, "step", MagicMock()),
        lambda wrapper: setattr(wrapper, "zero_grad", MagicMock()),
        lambda wrapper: setattr(wrapper.optimizer, "step", MagicMock()),
    ],
)
def test_zeroing_is_left_to_zero_grad_when_somebody_could_see_it(change: Any) -> None:
    model, optimizer, wrapper = spied_wrapper()
    optimizer.zero_grad = MagicMock()  # type: ignore[method-assign]
    change(wrapper)
    wrapper.update_params(loss_of(model, 0), zero_kwargs={"set_to_none": False})
    assert optimizer.calls == []
    called = wrapper.zero_grad if isinstance(wrapper.zero_grad, MagicMock) else optimizer.zero_grad
    called.assert_called_once_with(set_to_none=False)


# -- the fused step with error_if_nonfinite, clip settings taken away ----------------------------


@pytest.mark.parametrize("kind", [OptimWrapper, AmpOptimWrapper])
def test_error_if_nonfinite_is_one_call(kind: Any) -> None:
    clip_grad = {"max_norm": 0.1, "error_if_nonfinite": True}
    model, optimizer, wrapper = spied_wrapper(kind, clip_grad=clip_grad)
    wrapper.update_params(loss_of(model, 0))
    assert optimizer.calls[0]["clip"].error_if_nonfinite
    before = copy.deepcopy(weights(model))
    with pytest.raises(RuntimeError, match=r"norm of order 2.0 for gradients .* is non-finite"):
        wrapper.update_params(loss_of(model, 0) * float("inf"))
    assert_same(before, weights(model))


def test_clipping_may_end_midway() -> None:
    model, optimizer, wrapper = spied_wrapper(AmpOptimWrapper, clip_grad={"max_norm": 1e-9})
    wrapper.update_params(loss_of(model, 0))
    wrapper.clip_grad_kwargs = None
    before = copy.deepcopy(weights(model))
    wrapper.update_params(loss_of(model, 0))
    assert optimizer.calls[1]["clip"] is None
    assert float((weights(model)[0] - before[0]).abs().max()) > 1e-4


# -- norms in backward, copies --------------------------------------------------------------------


@pytest.mark.skipif(not native.enabled(), reason="needs the native passes")
@pytest.mark.parametrize("make", ["updater", "wrapper"])
def test_norms_are_taken_in_the_last_backward_of_a_group_alone(make: str) -> None:
    model = make_model(torch.float32)
    optimizer = fused.SGD(model.parameters(), lr=0.1)
    clip, overlap = {"max_norm": 0.1}, {"overlap_norm": True}
    part: Any
    if make == "updater":
        part = Updater(optimizer, clip=GradClip(**clip), accumulation=3, **overlap)  # type: ignore[arg-type]
        part.begin(0, 5)
    else:
        part = OptimWrapper(optimizer, clip_grad=clip, accumulative_counts=3, **overlap)  # type: ignore[arg-type]
        part.initialize_count_status(model, 0, 5)
    norm = optimizer._overlap
    assert norm is not None
    taken = []
    for index in range(5):
        part.backward(loss_of(model, index))
        taken.append(len(norm._sums))
        if index in (2, 4):
            part.step()
            part.zero_grad()
    assert taken == [0, 0, 4, 0, 4]


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("clone", [copy.deepcopy, pickled])
@pytest.mark.parametrize("kind", [torch.optim.SGD, fused.SGD])
def test_a_copy_counts_its_own_steps(kind: Any, clone: Any) -> None:
    model = make_model(torch.float32)
    wrapper: Any = OptimWrapper(kind(model.parameters(), lr=0.1))
    wrapper.message_hub = None  # a hub cannot be pickled
    scheduler = StepLR(wrapper, step_size=2)
    for index in range(2):
        wrapper.update_params(loss_of(model, index))
        scheduler.step()
    twin_model, twin, twin_scheduler = clone((model, wrapper, scheduler))
    assert twin_scheduler.optimizer is twin
    counts = wrapper._global_step, twin._global_step
    before = copy.deepcopy(weights(model))
    twin.update_params(loss_of(twin_model, 3))
    twin_scheduler.step()
    assert_same(before, weights(model))
    assert not torch.equal(weights(twin_model)[0], before[0])
    assert (wrapper._global_step, twin._global_step) == (counts[0], counts[1] + 1)
    LinearLR(twin)
    assert twin.step._with_counter
