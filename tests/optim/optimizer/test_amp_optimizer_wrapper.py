"""Mixed precision through the optimizer wrapper."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from fasttrain.core import fused
from fasttrain.core.precision import LossScaler
from fasttrain.logging import MessageHub
from fasttrain.optim import AmpOptimWrapper, OptimWrapper
from support import check_save_and_resume

SCALE = {"init_scale": 8.0, "growth_interval": 3}


@pytest.fixture(autouse=True)
def hub(request: pytest.FixtureRequest) -> MessageHub:
    return MessageHub.get_instance(f"amp wrapper {request.node.name}")


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def make_wrapper(model: nn.Module, kind: Any = torch.optim.SGD, **kwargs: Any) -> AmpOptimWrapper:
    return AmpOptimWrapper(optimizer=kind(model.parameters(), lr=0.1), **kwargs)


@pytest.mark.parametrize(
    ("loss_scale", "scale", "fixed"),
    [("dynamic", 2.0**16, None), (512.0, 512.0, 512.0), ({"init_scale": 4.0}, 4.0, None)],
)
def test_loss_scale(loss_scale: Any, scale: float, fixed: float | None) -> None:
    wrapper = make_wrapper(make_model(), loss_scale=loss_scale)
    assert isinstance(wrapper.loss_scaler, torch.amp.GradScaler)
    assert wrapper.loss_scaler.get_scale() == scale
    assert wrapper._scale_update_param == fixed


def test_bad_arguments() -> None:
    model = make_model()
    with pytest.raises(TypeError, match='loss_scale must be of type float, dict, or "dynamic"'):
        make_wrapper(model, loss_scale="static")
    with pytest.raises(AssertionError, match="dtype should be any of"):
        make_wrapper(model, dtype="int8")
    with pytest.raises(AssertionError, match=r"dtype should be any of .* got torch.int8"):
        make_wrapper(model, dtype=torch.int8)
    with pytest.raises(AssertionError, match=r"instance of torch.dtype, got 16"):
        make_wrapper(model, dtype=16)


@pytest.mark.parametrize(
    ("dtype", "shown"),
    [
        (None, torch.bfloat16),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        (torch.float16, torch.float16),
        ("float32", torch.float32),
        ("float64", torch.float32),
    ],
)
def test_forward_pass_runs_under_autocast(dtype: Any, shown: torch.dtype) -> None:
    model = make_model()
    wrapper = make_wrapper(model, dtype=dtype)
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 3)).dtype is shown
    assert model(torch.ones(1, 3)).dtype is torch.float32


def test_autocast_and_no_sync_together() -> None:
    model: Any = make_model()
    model.no_sync = MagicMock(return_value=MagicMock())
    wrapper = make_wrapper(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 3)).dtype is torch.bfloat16
    model.no_sync.return_value.__exit__.assert_called_once()


def test_goes_through_the_scaler() -> None:
    wrapper: Any = make_wrapper(make_model(), loss_scale=4.0, clip_grad={"max_norm": 1.0})
    wrapper.loss_scaler = scaler = MagicMock()
    wrapper.backward(1)
    scaler.scale.assert_called_once_with(1)
    scaler.scale.return_value.backward.assert_called_once_with()
    assert wrapper.inner_count == 1
    wrapper.step()
    scaler.unscale_.assert_called_once_with(wrapper.optimizer)
    scaler.step.assert_called_once_with(wrapper.optimizer)
    scaler.update.assert_called_once_with(4.0)


@pytest.mark.parametrize("clip_grad", [None, {"max_norm": 0.05}])
@pytest.mark.parametrize("kind", [torch.optim.SGD, fused.SGD])
@pytest.mark.parametrize("k", [1, 2])
def test_trains_as_torch_does(kind: Any, clip_grad: Any, k: int, hub: MessageHub) -> None:
    """Overflow in the third step included."""
    model, reference = make_model(), make_model()
    wrapper = make_wrapper(
        model,
        kind,
        loss_scale=SCALE,
        clip_grad=clip_grad,
        accumulative_counts=k,
        dtype="float16",
    )
    wrapper.initialize_count_status(model, 0, 8 * k)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", **SCALE)  # type: ignore[arg-type]
    for step in range(8):
        factor = math.inf if step == 2 else 1.0
        for position in range(k):
            inputs = torch.full((2, 3), 0.1 * (step + position + 1))
            with wrapper.optim_context(model):
                loss = model(inputs).square().mean() * factor
            wrapper.update_params(loss)
            with torch.autocast("cpu", torch.float16):
                expected = reference(inputs).square().mean() * factor / k
            scaler.scale(expected).backward()
        if clip_grad:
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
            shown = hub.get_scalar("train/grad_norm").current()
            if math.isfinite(norm):
                assert shown == pytest.approx(float(norm), rel=1e-4)
            else:
                assert not math.isfinite(shown)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert wrapper.loss_scaler.state_dict() == scaler.state_dict()
        assert hub.get_scalar("train/skipped_steps").current() == int(step >= 2)
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)
        assert mine.grad is None


def test_a_fused_optimizer_steps_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    original = fused.SGD.fused_step

    def spy(self: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return original(self, **kwargs)

    monkeypatch.setattr(fused.SGD, "fused_step", spy)
    model = make_model()
    wrapper = make_wrapper(model, fused.SGD)
    wrapper.update_params(model(torch.ones(1, 3)).sum())
    assert [(call["scaler"], call["clip"]) for call in calls] == [(wrapper.loss_scaler, None)]

    class Watching(AmpOptimWrapper):
        def _clip_grad(self) -> None:
            super()._clip_grad()

    watching = Watching(optimizer=fused.SGD(model.parameters(), lr=0.1), clip_grad={"max_norm": 1})
    watching.update_params(model(torch.ones(1, 3)).sum())
    assert len(calls) == 1


def test_skipped_steps_are_said_for_float16_only(hub: MessageHub) -> None:
    model = make_model()
    wrapper = make_wrapper(model, dtype="bfloat16")
    wrapper.update_params(model(torch.ones(1, 3)).sum())
    assert not hub.log_scalars


def test_fixed_scale_survives_overflow() -> None:
    model = make_model()
    wrapper = make_wrapper(model, loss_scale=4.0)
    before = [parameter.clone() for parameter in model.parameters()]
    for _ in range(3):
        wrapper.update_params(model(torch.ones(1, 3)).sum() * math.inf)
    assert wrapper.loss_scaler.get_scale() == 4.0
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


def test_sharded_scaler_for_fsdp() -> None:
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    scaler = make_wrapper(make_model(), use_fsdp=True).loss_scaler
    assert type(scaler) is ShardedGradScaler


@pytest.mark.parametrize("kind", [torch.optim.AdamW, fused.AdamW])
def test_resumes(kind: Any) -> None:
    def make() -> Any:
        model = make_model()
        return model, make_wrapper(model, kind, loss_scale=SCALE, clip_grad={"max_norm": 1.0})

    def advance(part: Any, step: int) -> Any:
        model, wrapper = part
        factor = math.inf if step in (1, 6) else 1.0
        wrapper.update_params(model(torch.full((1, 3), float(step))).square().sum() * factor)
        return [*(p.detach() for p in model.parameters()), wrapper.loss_scaler.get_scale()]

    def state(part: Any) -> Any:
        return {"model": dict(part[0].state_dict()), "wrapper": part[1].state_dict()}

    def load(part: Any, saved: Any) -> None:
        part[0].load_state_dict(saved["model"])
        part[1].load_state_dict(saved["wrapper"])
        assert "loss_scaler" in saved["wrapper"]

    check_save_and_resume(make, advance, state=state, load=load)


def test_states_pass_between_precisions() -> None:
    model = make_model()
    amp = make_wrapper(model, loss_scale=SCALE)
    plain = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5))
    amp.load_state_dict(plain.state_dict())
    assert amp.get_lr() == {"lr": [0.5]}
    assert amp.loss_scaler.get_scale() == 8.0
    amp.load_state_dict({**plain.state_dict(), "loss_scaler": {}})  # of a disabled scaler
    assert isinstance(amp.loss_scaler, LossScaler)
    assert amp.loss_scaler.get_scale() == 8.0
