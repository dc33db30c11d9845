"""The loss scaler agrees with torch's, counts skipped steps, and reads nothing from the device."""

from __future__ import annotations

import copy
import logging
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.core.precision import LossScaler, Precision, SkipWatch, build_scaler
from support import assert_same, check_save_and_resume

OPTIONS: dict[str, Any] = {"init_scale": 8.0, "growth_interval": 2}


def make_step(scaler: torch.amp.GradScaler, *, fused: bool = False) -> Any:
    """A model, and a function that does one scaled step, non-finite on demand."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)

    def step(finite: bool) -> None:
        loss = model(torch.ones(4, 3)).square().mean()
        scaler.scale(loss if finite else loss * math.inf).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return model, step


@pytest.mark.parametrize("fused", [False, True])
def test_follows_torch_scaler(fused: bool) -> None:
    ours, theirs = LossScaler("cpu", **OPTIONS), torch.amp.GradScaler("cpu", **OPTIONS)
    model, step = make_step(ours, fused=fused)
    reference, reference_step = make_step(theirs, fused=fused)
    for finite in (True, False, True, True, True, False, False, True):
        step(finite)
        reference_step(finite)
        assert ours.state_dict() == theirs.state_dict()
        assert_same(dict(model.state_dict()), dict(reference.state_dict()))
    assert float(ours.skipped) == 3


def test_state_is_interchangeable() -> None:
    ours, theirs = LossScaler("cpu", **OPTIONS), torch.amp.GradScaler("cpu")
    _, step = make_step(ours)
    step(False)
    theirs.load_state_dict(ours.state_dict())
    assert theirs.get_scale() == 4.0
    back = LossScaler("cpu")
    back.load_state_dict(theirs.state_dict())
    assert back.state_dict() == ours.state_dict()


def test_default_device_needs_no_accelerator() -> None:
    scaler = LossScaler()
    assert scaler.is_enabled()
    assert isinstance(scaler, torch.amp.GradScaler)


def test_disabled_scaler_is_transparent() -> None:
    scaler = LossScaler("cpu", enabled=False)
    loss = torch.tensor(2.0)
    assert scaler.scale(loss) is loss
    scaler.update()
    assert scaler.state_dict() == {}
    assert float(scaler.skipped) == 0


def test_record_found_inf_stands_for_the_check() -> None:
    scaler = LossScaler("cpu", **OPTIONS)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scaler.scale(torch.tensor(1.0))
    scaler.record_found_inf(optimizer, torch.ones(()))
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert float(scaler.skipped) == 1
    scaler.record_found_inf(optimizer, torch.zeros(1))
    scaler.update()
    assert float(scaler.skipped) == 1


def test_every_optimizer_counts_its_own_skips() -> None:
    scaler = LossScaler("cpu", **OPTIONS)
    one, two = (torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(2))
    scaler.scale(torch.tensor(1.0))
    scaler.record_found_inf(one, torch.ones(()))
    scaler.record_found_inf(two, torch.ones(()))
    scaler.update()
    assert float(scaler.skipped) == 2
    assert scaler.get_scale() == 4.0


def test_step_with_a_fused_optimizer_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = LossScaler("cpu", **OPTIONS)
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1)

    def refuse(self: torch.Tensor) -> None:
        raise AssertionError("read from the device")

    for name in ("item", "__float__", "__bool__", "__int__", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for _ in range(5):
        scaler.scale(parameter.sum()).backward()
        scaler.record_found_inf(optimizer, torch.ones(()))
        scaler.update()
    monkeypatch.undo()
    assert float(scaler.skipped) == 5


def test_watch_warns_after_a_run_of_skips(caplog: pytest.LogCaptureFixture) -> None:
    watch = SkipWatch(limit=6, interval=2)
    skipped = torch.zeros(())

    def run(flags: str) -> int:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fasttrain.core.precision"):
            for flag in flags:
                skipped.add_(float(flag))
                watch.tick(skipped)
        return len(caplog.records)

    assert run("11111") == 0
    assert run("1") == 1
    assert "last 6 optimizer steps were ALL SKIPPED" in caplog.text
    assert run("11111") == 0
    assert run("1") == 1  # and again, for as long as it goes on
    assert run("11110111110101") == 0


def test_watch_refuses_an_interval_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="limit must be a multiple of interval, got 50 and 7"):
        SkipWatch(interval=7)


def test_scaler_warns_after_fifty_skips(caplog: pytest.LogCaptureFixture) -> None:
    scaler = LossScaler("cpu")
    _, step = make_step(scaler)
    with caplog.at_level(logging.WARNING, "fasttrain.core.precision"):
        for _ in range(49):
            step(False)
        assert not caplog.records
        step(False)
    assert len(caplog.records) == 1


def test_copies() -> None:
    scaler = LossScaler("cpu", **OPTIONS)
    _, step = make_step(scaler)
    step(False)
    for copied in (copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        assert copied.state_dict() == scaler.state_dict()
        assert float(copied.skipped) == 1


def test_scaler_resumes() -> None:
    def make() -> Any:
        precision = Precision("fp16", loss_scale=OPTIONS)
        return precision, make_step(precision.scaler)[1]

    def advance(part: Any, step: int) -> float:
        part[1](step % 3 != 1)
        return part[0].scaler.get_scale()

    check_save_and_resume(
        make,
        advance,
        state=lambda part: part[0].state_dict(),
        load=lambda part, saved: part[0].load_state_dict(saved),
    )


@pytest.mark.parametrize(
    ("loss_scale", "scale", "fixed"),
    [("dynamic", 2.0**16, None), (512.0, 512.0, 512.0), (512, 512.0, 512.0)]
    + [({"init_scale": 4.0, "growth_factor": 3.0}, 4.0, None)],
)
def test_build_scaler(loss_scale: Any, scale: float, fixed: float | None) -> None:
    scaler, fixed_scale = build_scaler(loss_scale, device="cpu")
    assert isinstance(scaler, LossScaler)
    assert scaler.get_scale() == scale
    assert fixed_scale == fixed


@pytest.mark.parametrize("loss_scale", ["static", None, [1.0], True])
def test_build_scaler_refuses(loss_scale: Any) -> None:
    with pytest.raises(TypeError, match='must be of type float, dict, or "dynamic", but got'):
        build_scaler(loss_scale)


def test_build_scaler_leaves_its_argument() -> None:
    options = {"init_scale": 4.0}
    build_scaler(options, growth_interval=7, device="cpu")
    assert options == {"init_scale": 4.0}


@pytest.mark.parametrize(
    ("name", "dtype", "scales"),
    [
        ("fp32", torch.float32, False),
        ("bf16", torch.bfloat16, False),
        ("fp16", torch.float16, True),
    ],
)
def test_precision(name: str, dtype: torch.dtype, scales: bool) -> None:
    precision = Precision(name)
    with precision.autocast("cpu"):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is dtype
    assert (precision.scaler is not None) == scales
    assert bool(precision.state_dict()) == scales


def test_precision_refuses_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"precision must be one of \['bf16', .*\], got 'int8'"):
        Precision("int8")


def test_precision_without_scaler_ignores_scaler_state() -> None:
    precision = Precision("bf16")
    precision.load_state_dict(Precision("fp16").state_dict())
    assert precision.state_dict() == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_watch_on_a_gpu_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    watch = SkipWatch(limit=4, interval=2)
    skipped = torch.zeros((), device="cuda")
    with caplog.at_level(logging.WARNING, "fasttrain.core.precision"):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(4):
                skipped.add_(1)
                watch.tick(skipped)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        watch.tick(skipped)
    assert len(caplog.records) == 1
