"""The one-call step against its parts: unscale, finite check, norm, clip, update, zero."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fasttrain.core import fused
from support import assert_same


def by_norm(max_norm=1.0, norm_type=2.0, strict=False):
    return SimpleNamespace(
        type="norm", max_norm=max_norm, norm_type=norm_type, error_if_nonfinite=strict
    )


def by_value(limit):
    return SimpleNamespace(type="value", clip_value=limit)


def make_scaler(scale=1024.0):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
    scaler.scale(torch.ones(()))
    return scaler


@pytest.mark.parametrize("norm_type", [1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_norms_of_other_orders(path, norm_type, max_norm, make_params, set_grads, assert_close):
    ours, theirs = make_params(), [p for p in make_params() if p.numel()]
    optimizer, reference = fused.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    set_grads(ours, 0, 8.0)
    norm = optimizer.fused_step(clip=by_norm(max_norm, norm_type), divisor=8.0)
    set_grads(theirs, 0)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    reference.step()
    torch.testing.assert_close(norm, expected, rtol=1e-4, atol=0)
    assert_close([p for p in ours if p.numel()], theirs, rtol=1e-4, atol=1e-6)


def test_scaled_and_clipped_step(case, path, make_params, set_grads, assert_close):
    ours, theirs = make_params(), make_params()
    optimizer, reference = case.ours(ours, **case.kwargs), case.theirs(theirs)
    scaler = make_scaler()
    for step in range(3):
        set_grads(ours, step, 1024.0 * 4)
        norm = optimizer.fused_step(scaler=scaler, clip=by_norm(0.5), divisor=4.0)
        scaler.update()
        set_grads(theirs, step)
        expected = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        reference.step()
        assert norm.dtype == torch.float32 and norm.shape == ()
        torch.testing.assert_close(norm, expected, rtol=1e-4, atol=0)
    assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


def test_clip_by_value(path, make_params, set_grads, assert_close):
    ours, theirs = make_params(), make_params()
    optimizer, reference = fused.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    set_grads(ours, 0, 8.0)
    assert optimizer.fused_step(clip=by_value(0.3), divisor=8.0) is None
    set_grads(theirs, 0)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    reference.step()
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_zeroes_gradients_in_place(path, make_params, set_grads):
    params = make_params()
    optimizer = fused.AdamW(params)
    set_grads(params, 0)
    grads = [p.grad for p in params]
    optimizer.fused_step(clip=by_norm(), zero=True)
    assert all(p.grad is g and not g.any() for p, g in zip(params, grads, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("clip", [None, by_norm(), by_norm(norm_type=float("inf")), by_value(1.0)])
def test_skips_non_finite_at_every_position(path, bad, clip, make_params, set_grads):
    shapes = [(3,), (17,), (1,), (9_000,)]
    params = make_params(shapes)
    optimizer = fused.AdamW(params)
    set_grads(params, 0)
    optimizer.step()
    for index, param in enumerate(params):
        for position in {0, param.numel() // 2, param.numel() - 1}:
            scaler = make_scaler()
            before = [p.detach().clone() for p in params]
            set_grads(params, 1)
            param.grad[position] = bad
            optimizer.fused_step(scaler=scaler, clip=clip, zero=True)
            assert_same(before, [p.detach() for p in params], f"parameter {index}")
            assert float(optimizer.state[param]["step"]) == 1.0
            assert not any(p.grad.any() for p in params)
            scaler.update()
            assert scaler.get_scale() == 512.0


def test_without_scaler_a_non_finite_gradient_spreads_as_in_torch(path, make_params, set_grads):
    ours, theirs = make_params([(4,), (3,)]), make_params([(4,), (3,)])
    for params in (ours, theirs):
        set_grads(params, 0)
        params[0].grad[1] = float("inf")
    fused.SGD(ours, lr=0.1).fused_step(clip=by_norm())
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    torch.optim.SGD(theirs, lr=0.1).step()
    assert_same([p.detach() for p in theirs], [p.detach() for p in ours])


def test_error_if_nonfinite(path, make_params, set_grads):
    params = make_params([(4,)])
    before = params[0].detach().clone()
    set_grads(params, 0)
    params[0].grad[0] = float("nan")
    with pytest.raises(RuntimeError, match=r"norm of order 2.0 .* is non-finite"):
        fused.SGD(params, lr=0.1).fused_step(clip=by_norm(strict=True))
    assert_same(params[0].detach(), before)


def test_unknown_clip_type(native_path, make_params, set_grads):
    params = make_params([(4,)])
    set_grads(params, 0)
    with pytest.raises(ValueError, match=r"clip\.type must be 'norm' or 'value', got 'size'"):
        fused.SGD(params, lr=0.1).fused_step(clip=SimpleNamespace(type="size"))


def test_large_gradients_are_finite(path, make_params):
    """Squares overflow float32 here, yet every gradient is finite: the step is not skipped."""
    params = make_params([(4,)])
    before = params[0].detach().clone()
    params[0].grad = torch.full((4,), 1e30)
    scaler = make_scaler(1e30)
    fused.SGD(params, lr=0.1).fused_step(scaler=scaler)
    torch.testing.assert_close(params[0].detach(), before - 0.1)


def test_scaler_stages(path, make_params, set_grads, assert_close):
    ours, theirs = make_params(), make_params()
    optimizer, reference = fused.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    scaler = make_scaler()
    set_grads(ours, 0, 1024.0)
    scaler.unscale_(optimizer)
    optimizer.fused_step(scaler=scaler)
    set_grads(theirs, 0)
    reference.step()
    assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"already been called since the last update\(\)"):
        optimizer.fused_step(scaler=scaler)
    scaler.update()
    set_grads(ours, 1, 1024.0)
    optimizer.fused_step(scaler=scaler)


def test_scaler_without_scale(path, make_params, set_grads):
    params = make_params([(4,)])
    set_grads(params, 0)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises((RuntimeError, AssertionError), match="scale"):
        fused.SGD(params, lr=0.1).fused_step(scaler=scaler)


def test_disabled_scaler_is_no_scaler(path, make_params, set_grads, assert_close):
    ours, theirs = make_params(), make_params()
    set_grads(ours, 0)
    set_grads(theirs, 0)
    fused.SGD(ours, lr=0.1).fused_step(scaler=torch.amp.GradScaler("cpu", enabled=False))
    torch.optim.SGD(theirs, lr=0.1).step()
    assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_plain_grad_scaler_steps_it(path, make_params, set_grads, assert_close):
    """torch's own `scaler.step(optimizer)`, with a skipped step in between."""
    ours, theirs = make_params(), make_params()
    pairs = [
        (ours, fused.AdamW(ours, lr=0.01), make_scaler()),
        (theirs, torch.optim.AdamW(theirs, lr=0.01), make_scaler()),
    ]
    for step in range(6):
        for params, optimizer, scaler in pairs:
            set_grads(params, step, scaler.get_scale())
            if step == 2:
                params[1].grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
    assert pairs[0][2].get_scale() == pairs[1][2].get_scale()
    assert float(pairs[0][1].state[ours[0]]["step"]) == 5.0
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtypes", [[torch.float64], [torch.float64, torch.float32]], ids=str)
def test_plain_grad_scaler_steps_other_kinds(path, dtypes):
    """Parameters that torch's own step must take, through torch's GradScaler."""
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in dtypes]
    optimizer = fused.AdamW(params, lr=0.1, weight_decay=0.0)
    for grad in (1.0, float("inf"), 1.0):
        scaler = make_scaler(8.0)
        for param in params:
            param.grad = torch.full_like(param, grad * 8.0)
        scaler.step(optimizer)
        scaler.update()
    for param in params:
        torch.testing.assert_close(param.detach(), torch.full_like(param, 0.8))


def test_norm_does_not_depend_on_the_number_of_threads(native_path, make_params, set_grads):
    norms = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            params = make_params([(100_003,), (5,), (70_000,)])
            set_grads(params, 0)
            norms.append(fused.SGD(params, lr=0.0).fused_step(clip=by_norm()))
    finally:
        torch.set_num_threads(threads)
    assert norms[0] == norms[1] == norms[2]


def test_no_gradients(path, make_params):
    params = make_params([(4,)])
    norm = fused.SGD(params, lr=0.1).fused_step(clip=by_norm())
    assert float(norm) == 0.0
