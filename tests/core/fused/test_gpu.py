"""The CUDA backend against the CPU's results and torch's, and inside a captured graph."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from fasttrain import native
from fasttrain.core import fused
from fasttrain.core.fused.sums import GradientSums
from support import assert_same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not native.cuda_usable(), reason="needs the CUDA backend and a GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

CLIP = SimpleNamespace(type="norm", max_norm=0.5, norm_type=2.0, error_if_nonfinite=False)


def on_gpu(params):
    return [torch.nn.Parameter(p.detach().cuda()) for p in params]


@contextmanager
def no_sync():
    """Within it every wait for the device is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
    with no_sync():
        optimizer.fused_step(scaler=scaler, clip=CLIP, zero=True)
        scaler.update()
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


def test_capture_with_gradients_of_the_graph_between_plain_steps(
    native_path, make_params, assert_close
):
    replayed, plain = on_gpu(make_params()), on_gpu(make_params())
    optimizers = [fused.AdamW(p, lr=0.01) for p in (replayed, plain)]
    factor = torch.ones((), device="cuda")

    def backward(params):
        for p in params:
            p.grad = None
        sum((p * factor).square().sum() for p in params).backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for params, optimizer in zip((replayed, plain), optimizers, strict=True):
            backward(params)
            optimizer.fused_step(clip=CLIP)
    torch.cuda.current_stream().wait_stream(side)
    for p in replayed:
        p.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        backward(replayed)
        optimizers[0].fused_step(clip=CLIP)
    held = [p.grad for p in replayed]
    for step in range(4):
        factor.fill_(1.0 + step)
        graph.replay()
        backward(plain)
        optimizers[1].fused_step(clip=CLIP)
        for params, optimizer in zip((replayed, plain), optimizers, strict=True):
            backward(params)  # other gradients, at other addresses
            optimizer.fused_step(clip=CLIP)
        for p, grad in zip(replayed, held, strict=True):
            p.grad = grad
    assert_close(replayed, plain, rtol=1e-6, atol=1e-7)


def test_a_learning_rate_on_the_gpu_is_read_there(native_path, make_params, assert_close):
    followed, plain = on_gpu(make_params()), on_gpu(make_params())
    rate = torch.tensor(0.01, device="cuda")
    optimizers = [fused.AdamW(followed, lr=rate), fused.AdamW(plain, lr=0.01)]
    for params in (followed, plain):
        for p in params:
            p.grad = torch.ones_like(p)
    for optimizer in optimizers:
        optimizer.fused_step(clip=CLIP)
    with no_sync():
        optimizers[0].fused_step(clip=CLIP)
    optimizers[1].fused_step(clip=CLIP)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizers[0].fused_step(clip=CLIP)
    for lr in (0.02, 0.005):
        optimizers[0].param_groups[0]["lr"].fill_(lr)
        optimizers[1].param_groups[0]["lr"] = lr
        graph.replay()
        optimizers[1].fused_step(clip=CLIP)
    assert_close(followed, plain, rtol=1e-6, atol=1e-7)


def test_a_first_step_cannot_be_captured(native_path):
    param = torch.nn.Parameter(torch.ones(3, device="cuda"))
    param.grad = torch.ones_like(param)
    optimizer = fused.AdamW([param])
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(RuntimeError, match="run one step with all gradients there before"),
        torch.cuda.graph(graph),
    ):
        param.grad.mul_(2.0)  # an empty graph would be warned about
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_unaligned_views_and_odd_sizes(native_path, dtype, set_grads, assert_close):
    sizes = [1, 3, 16_383, 16_385, 40_003]
    room = torch.randn(sum(sizes) + len(sizes) + 1).to(dtype)

    def views(on):
        flat = room.clone().to(on)
        starts = [1 + sum(sizes[:i]) + i for i in range(len(sizes))]
        parts = zip(starts, sizes, strict=True)
        return [torch.nn.Parameter(flat[at : at + size]) for at, size in parts]

    host, device = views("cpu"), views("cuda")
    optimizers = [fused.AdamW(p, lr=0.01, master_weights=True) for p in (host, device)]
    for step in range(3):
        set_grads(host, step)
        for left, right in zip(device, host, strict=True):
            left.grad = right.grad.cuda()
        for optimizer in optimizers:
            optimizer.fused_step(clip=CLIP, zero=True)
    eps = torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5
    assert_close([p.cpu() for p in device], host, rtol=2 * eps, atol=2 * eps)
    assert not any(bool(p.grad.any()) for p in device)


def test_the_first_update_survives_a_skip_and_a_new_table(native_path, assert_close):
    kwargs = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}
    sides = []
    for kind in (fused.SGD, torch.optim.SGD):
        params = [torch.nn.Parameter(torch.ones(5, device="cuda")) for _ in range(2)]
        sides.append((params, kind(params, **kwargs)))
    (ours, optimizer), (theirs, reference) = sides
    ours[0].grad = torch.full_like(ours[0], float("inf"))
    scaler = make_scaler("cuda")
    optimizer.fused_step(scaler=scaler)
    scaler.update()
    for params in (ours, theirs):  # the second one's first gradient makes a new table
        for p in params:
            p.grad = torch.ones_like(p)
    for _ in range(2):
        optimizer.step()
        reference.step()
    assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_many_groups_change_their_rates_without_a_sync(native_path, assert_close):
    sides = []
    for kind in (fused.AdamW, torch.optim.AdamW):
        generator = torch.Generator("cuda").manual_seed(0)
        params = [
            torch.nn.Parameter(torch.randn(7, device="cuda", generator=generator))
            for _ in range(600)
        ]
        sides.append((params, kind([{"params": [p], "lr": 0.01} for p in params])))
    for step in range(3):
        for params, optimizer in sides:
            for index, (p, group) in enumerate(zip(params, optimizer.param_groups, strict=True)):
                p.grad = torch.full_like(p, 1.0 + index)
                group["lr"] = 0.01 * (1 + index % 5) / (1 + step)
        (_, ours), (_, theirs) = sides
        if step == 0:
            ours.step()
        else:
            with no_sync():
                ours.step()
        theirs.step()
    assert_close(sides[0][0], sides[1][0], rtol=1e-5, atol=1e-6)


def test_overlap_norm_is_refused(native_path):
    optimizer = fused.AdamW([torch.nn.Parameter(torch.ones(3, device="cuda"))])
    with pytest.raises(RuntimeError, match="none of the parameters is one that the CPU's"):
        optimizer.enable_overlap_norm()


@pytest.mark.parametrize("master", [False, True, "split"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_float32_sums_of_gradients(native_path, dtype, master, make_params, assert_close):
    host = make_params([(5,), (40_001,), (64, 128), ()], dtype=dtype)
    sides = []
    for params in (host, on_gpu(host)):
        optimizer = fused.AdamW(params, lr=0.01, master_weights=master, state_dtype=torch.float32)
        sides.append((params, optimizer, GradientSums(optimizer)))
    for step in range(3):
        norms = []
        for params, optimizer, sums in sides:
            generator = torch.Generator().manual_seed(step)
            for batch in range(4):
                sums.begin(batch == 3)
                grads = [torch.randn(p.shape, generator=generator).to(p.device) for p in params]
                sum((p * g.to(dtype)).sum() for p, g in zip(params, grads, strict=True)).backward()
            assert all(p.grad is None for p in params)
            norms.append(optimizer.fused_step(clip=CLIP, divisor=4.0, zero=step == 1))
            if step != 1:
                optimizer.zero_grad()
        torch.testing.assert_close(norms[1].cpu(), norms[0])
    eps = torch.finfo(dtype).eps
    assert_close([p.cpu() for p in sides[1][0]], host, rtol=4 * eps, atol=4 * eps)


def test_replaced_states_are_followed(native_path, assert_close):
    sides = []
    for kind in (fused.AdamW, torch.optim.AdamW):
        params = [torch.nn.Parameter(torch.ones(5, device="cuda")) for _ in range(3)]
        optimizer = kind(params, lr=0.1)
        for step in range(6):
            if step == 2:
                optimizer.state.clear()
            if step == 4:
                optimizer.state[params[0]]["exp_avg"] = torch.ones(5, device="cuda")
            for p in params:
                p.grad = torch.full_like(p, 1.0 + step)
            optimizer.step()
        sides.append(params)
    assert_close(sides[0], sides[1], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_another_gpu_than_the_scalers(native_path):
    param = torch.nn.Parameter(torch.ones(5, device="cuda:1"))
    param.grad = torch.full_like(param, 1024.0)
    optimizer, scaler = fused.SGD([param], lr=0.5), make_scaler("cuda")
    optimizer.fused_step(scaler=scaler, clip=None)
    scaler.update()
    torch.testing.assert_close(param.detach().cpu(), torch.full((5,), 0.5))


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
