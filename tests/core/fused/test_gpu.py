"""The CUDA backend against the CPU's results and torch's, and inside a captured graph."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fasttrain import native
from fasttrain.core import fused
from support import assert_same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not native.cuda_usable(), reason="needs the CUDA backend and a GPU"),
]

CLIP = SimpleNamespace(type="norm", max_norm=0.5, norm_type=2.0, error_if_nonfinite=False)


def on_gpu(params):
    return [torch.nn.Parameter(p.detach().cuda()) for p in params]


def make_scaler(device, scale=1024.0):
    scaler = torch.amp.GradScaler(device, init_scale=scale)
    scaler.scale(torch.ones((), device=device))
    return scaler


def test_same_as_on_the_cpu(case, native_path, make_params, set_grads, assert_close):
    host = make_params()
    device = on_gpu(host)
    sides = [
        (host, case.ours(host, **case.kwargs), make_scaler("cpu")),
        (device, case.ours(device, **case.kwargs), make_scaler("cuda")),
    ]
    for step in range(10):
        norms = []
        set_grads(host, step, 1024.0)
        for left, right in zip(device, host, strict=True):
            left.grad = right.grad.cuda()
        for _, optimizer, scaler in sides:
            norms.append(optimizer.fused_step(scaler=scaler, clip=CLIP))
            scaler.update()
        torch.testing.assert_close(norms[1].cpu(), norms[0])
    assert_close([p.cpu() for p in device], host, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("master", [True, "split"])
def test_masters(native_path, dtype, master, make_params, set_grads, assert_close):
    host = make_params(dtype=dtype)
    device = on_gpu(host)
    optimizers = [fused.AdamW(p, lr=0.01, master_weights=master) for p in (host, device)]
    for step in range(5):
        set_grads(host, step)
        for left, right in zip(device, host, strict=True):
            left.grad = right.grad.cuda()
        for optimizer in optimizers:
            optimizer.step()
    eps = torch.finfo(dtype).eps
    assert_close([p.cpu() for p in device], host, rtol=2 * eps, atol=2 * eps)


def test_skips_non_finite_without_a_sync(native_path, make_params, set_grads):
    params = on_gpu(make_params())
    optimizer = fused.AdamW(params)
    scaler = make_scaler("cuda")
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.fused_step(scaler=scaler, clip=CLIP)
    scaler.update()
    before = [p.detach().clone() for p in params]
    params[1].grad[3, 4] = float("nan")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.fused_step(scaler=scaler, clip=CLIP, zero=True)
        scaler.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same(before, [p.detach() for p in params])
    assert scaler.get_scale() == 512.0
    assert not any(bool(p.grad.any()) for p in params)
    assert all(float(optimizer.state[p]["step"]) == 1.0 for p in params)


def test_norm_is_deterministic(native_path):
    param = torch.nn.Parameter(torch.zeros(3_000_001, device="cuda"))
    param.grad = torch.randn_like(param)
    optimizer = fused.SGD([param], lr=0.0)
    norms = {float(optimizer.fused_step(clip=CLIP)) for _ in range(5)}
    assert len(norms) == 1


def test_captured_step(native_path, make_params, assert_close):
    replayed, plain = on_gpu(make_params()), on_gpu(make_params())
    optimizers = [fused.AdamW(p, lr=0.01) for p in (replayed, plain)]
    for params in (replayed, plain):
        for p in params:
            p.grad = torch.ones_like(p)
    for optimizer in optimizers:
        optimizer.fused_step(clip=CLIP)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizers[0].fused_step(clip=CLIP)
    for step in range(4):
        for params in (replayed, plain):
            for p in params:
                p.grad.fill_(float(step))
        graph.replay()
        optimizers[1].fused_step(clip=CLIP)
    assert_close(replayed, plain, rtol=1e-6, atol=1e-7)


def test_other_kinds_take_torchs_path(native_path, assert_close):
    params = [
        torch.nn.Parameter(torch.ones(3, device="cuda")),
        torch.nn.Parameter(torch.ones(3, device="cuda", dtype=torch.float64)),
    ]
    optimizer = fused.SGD(params, lr=0.1)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.fused_step(divisor=2.0)
    assert_close([p.cpu() for p in params], [torch.full((3,), 0.95)] * 2, rtol=1e-6, atol=1e-6)
