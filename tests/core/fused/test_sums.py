"""float32 sums of low-precision gradients: exact, read by fused steps, delivered to all others."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fasttrain.core import fused
from fasttrain.core.fused.sums import GradientSums, load_sums
from support import assert_same

CLIP = SimpleNamespace(type="norm", max_norm=0.5, norm_type=2.0, error_if_nonfinite=False)
BY_VALUE = SimpleNamespace(type="value", clip_value=0.3)
LOW = [torch.bfloat16, torch.float16]
SHAPES = [(5,), (1500,), (3, 7), (), (0,)]
BATCHES = 16


def batch_grads(params, step, batches=BATCHES, scale=1.0):
    """Per batch, low-precision gradients that mostly agree: the case that rounding hurts."""
    generator = torch.Generator().manual_seed(step)
    means = [torch.randn(p.shape, generator=generator) for p in params]
    noise = [
        [0.05 * torch.randn(p.shape, generator=generator) for p in params] for _ in range(batches)
    ]
    return [
        [((m + n) * scale).to(p.dtype) for m, n, p in zip(means, row, params, strict=True)]
        for row in noise
    ]


def backward(params, grads):
    """A backward pass that gives each parameter the gradient `grads` has for it."""
    torch.autograd.backward(
        [(p * g).sum() for p, g in zip(params, grads, strict=True) if g is not None]
    )


def accumulate(params, rows, sums=None):
    for index, grads in enumerate(rows):
        if sums is not None:
            sums.begin(index == len(rows) - 1)
        backward(params, grads)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_sums_are_exact_where_low_precision_is_not(path, dtype, make_params):
    params = make_params(SHAPES, dtype=dtype)
    optimizer = fused.SGD(params, lr=0.1)
    rows = batch_grads(params, 0)
    accumulate(params, rows)
    low = [p.grad.double() for p in params]
    optimizer.zero_grad()
    sums = GradientSums(optimizer)
    accumulate(params, rows, sums)
    assert all(p.grad is None for p in params)
    for index, param in enumerate(params):
        exact = sum(row[index].double() for row in rows)
        by_hand = torch.zeros(param.shape)
        for row in rows:
            by_hand += row[index].float()
        found = sums.gradient(param)
        assert found.dtype == torch.float32
        assert_same(found, by_hand)
        if param.numel() > 100:
            error = (found.double() - exact).norm() / exact.norm()
            low_error = (low[index] - exact).norm() / exact.norm()
            assert error < 1e-6 and low_error > 1e-3 * (1 if dtype == LOW[0] else 0.1)


@pytest.mark.parametrize("master", [False, True, "split"])
@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ["SGD", "AdamW", "LAMB"])
@pytest.mark.parametrize("clip", [None, CLIP, BY_VALUE])
def test_steps_are_those_of_float32_gradients(path, name, dtype, master, clip, make_params):
    """Against float32 parameters with gradient buffers made by hand."""
    low = make_params(SHAPES, dtype=dtype)
    exact = [nn.Parameter(p.detach().float()) for p in low]
    kwargs = {"lr": 0.01} | ({"momentum": 0.9} if name == "SGD" else {})
    # Squares of clipped gradients are too small for float16 moments, with and without sums.
    state_dtype = torch.float32 if dtype is torch.float16 else None
    ours = getattr(fused, name)(low, master_weights=master, state_dtype=state_dtype, **kwargs)
    reference = getattr(fused, name)(exact, **kwargs)
    sums = GradientSums(ours)
    assert sums.read_in_place
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    for step in range(4):
        rows = batch_grads(low, step, scale=8.0)
        accumulate(low, rows, sums)
        for index, param in enumerate(exact):
            param.grad = torch.zeros_like(param)
            for row in rows:
                param.grad += row[index].float()
        norms = []
        for optimizer in (ours, reference):
            norms.append(optimizer.fused_step(scaler=scaler, clip=clip, divisor=float(BATCHES)))
            scaler.update()
            optimizer.zero_grad()
        if clip is CLIP:
            torch.testing.assert_close(norms[0], norms[1], rtol=1e-5, atol=0)
    eps = torch.finfo(dtype).eps
    tolerance = 1.01 * eps if master else 8 * eps
    for left, right in zip(low, exact, strict=True):
        torch.testing.assert_close(left.float(), right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("zero", [False, True])
def test_non_finite_sums_skip_the_step(path, zero, make_params):
    params = make_params(SHAPES, dtype=torch.bfloat16)
    optimizer = fused.AdamW(params, master_weights=True)
    sums = GradientSums(optimizer)
    before = [p.detach().clone() for p in params]
    rows = batch_grads(params, 0, 3)
    rows[1][1][700] = float("inf")
    accumulate(params, rows, sums)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    optimizer.fused_step(scaler=scaler, clip=CLIP, zero=zero)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert_same(before, [p.detach() for p in params])
    if zero:
        assert not any(sums.gradient(p).any() for p in params)
    optimizer.zero_grad()
    assert all(sums.gradient(p) is None for p in params)


def test_plain_steps_read_the_sums(path, make_params):
    """`step()`, torch's scaler and hooks' order: no gradient is lost on any way."""
    results = []
    for summed in (True, False):
        params = make_params(SHAPES, dtype=torch.bfloat16)
        optimizer = fused.SGD(params, lr=0.5, master_weights=True)
        rows = batch_grads(params, 0, 1)
        if summed:
            accumulate(params, rows, GradientSums(optimizer))
        else:
            accumulate(params, rows)
        optimizer.step()
        results.append([p.detach() for p in params])
    assert_same(results[0], results[1])


def test_gradients_may_be_missing(path, make_params):
    results = []
    for summed in (True, False):
        params = make_params([(4,), (5,), (6,)], dtype=torch.bfloat16)
        optimizer = fused.AdamW(params, lr=0.1, master_weights=True)
        sums = GradientSums(optimizer) if summed else None
        for step in range(4):
            for batch in range(2):
                grads = [torch.full_like(p, 1.0 + batch) for p in params]
                grads[step % 3] = None if step < 3 else grads[step % 3]
                if step < 2:
                    grads[2] = None
                if sums is not None:
                    sums.begin(batch == 1)
                backward(params, grads)
            optimizer.fused_step(clip=CLIP, divisor=2.0)
            optimizer.zero_grad()
        results.append(([p.detach() for p in params], optimizer.state_dict()["state"]))
    for left, right in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(left, right)
    counts = [[float(s["step"]) for s in r[1].values()] for r in results]
    assert counts[0] == counts[1]


def test_a_shared_parameter_is_summed_once_per_pass(path):
    layer = nn.Linear(8, 8, bias=False).bfloat16()
    optimizer = fused.SGD(layer.parameters(), lr=0.1)
    sums = GradientSums(optimizer)
    x = torch.randn(4, 8).bfloat16()
    grads = []
    for batch in range(2):
        sums.begin(batch == 1)
        loss = layer(layer(x * (batch + 1))).square().mean()
        grads.append(torch.autograd.grad(loss, [layer.weight], retain_graph=True)[0])
        loss.backward()
    assert_same(sums.gradient(layer.weight), grads[0].float() + grads[1].float())


def test_float32_parameters_are_left_alone(path, make_params):
    params = [*make_params([(5,)]), *make_params([(5,)], dtype=torch.bfloat16)]
    optimizer = fused.SGD(params, lr=0.5)
    sums = GradientSums(optimizer)
    accumulate(params, [[torch.ones(5), torch.ones(5).bfloat16()]] * 2, sums)
    assert params[0].grad.tolist() == [2.0] * 5 and params[1].grad is None
    before = params[0].detach().clone()
    optimizer.fused_step(divisor=2.0)
    assert_same(params[0].detach(), before - 0.5)


def test_parameters_come_thaw_and_change_their_dtype(path, make_params):
    first, frozen = make_params([(3,), (3,)], dtype=torch.bfloat16)
    frozen.requires_grad_(False)
    optimizer = fused.SGD([first, frozen], lr=1.0, master_weights=True)
    sums = GradientSums(optimizer)
    late = nn.Parameter(torch.zeros(3))
    params = [first, frozen, late]
    starts = [p.detach().float().clone() for p in params]
    ones = torch.ones(3)
    for step in range(4):
        if step == 1:
            frozen.requires_grad_(True)
        if step == 2:
            optimizer.add_param_group({"params": [late]})
        if step == 3:
            late.data = late.data.bfloat16()
        grads = [ones.to(p.dtype) if p.requires_grad else None for p in params]
        for batch in range(2):
            sums.begin(batch == 1)
            backward(params, grads)
        assert [p.grad is None for p in params] == [True, True, step == 3]
        optimizer.fused_step(divisor=2.0)
        optimizer.zero_grad()
        late.grad = None
    steps = [4, 3, 2]
    for param, start, count in zip(params, starts, steps, strict=True):
        torch.testing.assert_close(param.float(), start - count, rtol=0.01, atol=0.02)


def test_gradients_that_somebody_set_are_added(path, make_params):
    (param,) = make_params([(3,)], dtype=torch.bfloat16)
    optimizer = fused.SGD([param], lr=1.0)
    sums = GradientSums(optimizer)
    backward([param], [torch.ones(3).bfloat16()])
    param.grad = torch.full((3,), 2.0).bfloat16()
    assert sums.gradient(param).tolist() == [3.0] * 3
    assert param.grad is None


@pytest.mark.parametrize("kind", ["torch", "fused=False"])
def test_other_optimizers_get_the_sum_rounded_once(path, kind, make_params):
    params = make_params(SHAPES, dtype=torch.bfloat16)
    if kind == "torch":
        optimizer = torch.optim.SGD(params, lr=0.1)
    else:
        optimizer = fused.SGD(params, lr=0.1, fused=False)
    sums = GradientSums(optimizer)
    assert not sums.read_in_place
    rows = batch_grads(params, 0)
    accumulate(params, rows, sums)
    assert all(p.grad is None for p in params)
    sums.prepare_step({}, composed=True)
    for index, param in enumerate(params):
        total = sum(row[index].float() for row in rows)
        assert_same(param.grad, total.bfloat16())
    with pytest.raises(RuntimeError, match="a step with a closure finds none"):
        sums.prepare_step({"closure": lambda: None}, composed=True)


def test_several_processes_see_the_whole_sum_before_the_last_backward(
    path, monkeypatch, make_params
):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    params = make_params([(1500,), (4,)], dtype=torch.bfloat16)
    optimizer = fused.SGD(params, lr=0.1)
    sums = GradientSums(optimizer)
    assert not sums.read_in_place
    rows = batch_grads(params, 0)
    rows[-1][1] = None  # not used by the last batch: the reducer must see it all the same
    for index, grads in enumerate(rows):
        sums.begin(index == len(rows) - 1)
        if index == len(rows) - 1:
            assert all(p.grad is not None for p in params)
        backward(params, grads)
    exact = sum(row[0].double() for row in rows)
    error = (params[0].grad.double() - exact).abs() / exact.abs()
    assert float(error.max()) <= 1.1 * torch.finfo(torch.bfloat16).eps
    total = sum(row[1].float() for row in rows[:-1])
    assert_same(params[1].grad, total.bfloat16())
    assert optimizer.fused_step(clip=CLIP, divisor=float(BATCHES)) is not None


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_stay_gradients(path):
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2)).bfloat16()
    optimizer = fused.SGD(model.parameters(), lr=1.0)
    sums = GradientSums(optimizer)
    before = model[0].weight.detach().clone()
    for batch in range(2):
        sums.begin(batch == 1)
        model(torch.tensor([1, 3])).sum().backward()
    assert model[0].weight.grad.is_sparse and model[1].weight.grad is None
    optimizer.step()
    moved = (model[0].weight != before).any(1)
    assert moved.tolist() == [i in (1, 3) for i in range(10)]


def test_layouts_of_gradients(path):
    param = nn.Parameter(torch.ones(2, 3, 4, 4).bfloat16().to(memory_format=torch.channels_last))
    twin = nn.Parameter(param.detach().clone())
    optimizer = fused.SGD([param], lr=0.5)
    sums = GradientSums(optimizer)
    grad = torch.randn(2, 3, 4, 4).bfloat16()
    for _ in range(2):
        param.grad = grad.clone()
        sums._sums[param].take(param)
    twin.grad = grad * 2
    optimizer.step()
    fused.SGD([twin], lr=0.5).step()
    assert_same(param.detach(), twin.detach())
    param.data = param.data.contiguous()  # between backward and step
    optimizer.step()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_sum_by_themselves(path, clone, make_params):
    params = make_params([(3,)], dtype=torch.bfloat16)
    optimizer = fused.SGD(params, lr=1.0, master_weights=True)
    sums = GradientSums(optimizer)
    backward(params, [torch.ones(3).bfloat16()])
    twin, twin_sums = clone((optimizer, sums))
    assert twin._sums is twin_sums and twin_sums._optimizer is twin
    (param,) = twin.param_groups[0]["params"]
    backward([param], [torch.ones(3).bfloat16()])
    assert param.grad is None
    assert twin_sums.gradient(param).tolist() == [2.0] * 3
    assert sums.gradient(params[0]).tolist() == [1.0] * 3
    before = params[0].detach().clone()
    twin.step()
    assert_same(params[0].detach(), before)
    torch.testing.assert_close(param.float(), before.float() - 2, rtol=0.01, atol=0.01)


def test_an_unfinished_group_goes_on_after_loading(path, make_params):
    rows = None
    results = []
    for cut in (False, True):
        params = make_params(SHAPES, dtype=torch.bfloat16)
        optimizer = fused.AdamW(params, lr=0.1, master_weights=True)
        sums = GradientSums(optimizer)
        rows = batch_grads(params, 0, 4)
        accumulate(params, rows[:2], sums)
        if cut:
            saved = copy.deepcopy((sums.state_dict(), optimizer.state_dict()))
            assert list(saved[0]) == list(range(len(SHAPES)))
            params = make_params(SHAPES, dtype=torch.bfloat16)
            optimizer = fused.AdamW(params, lr=0.1, master_weights=True)
            optimizer.load_state_dict(saved[1])
            sums = GradientSums(optimizer)
            load_sums(optimizer, sums, saved[0])
        accumulate(params, rows[2:], sums)
        optimizer.fused_step(divisor=4.0)
        results.append([p.detach() for p in params])
    assert_same(results[0], results[1])


def test_sums_load_into_plain_gradients(path, make_params):
    params = make_params([(3,), (4,)], dtype=torch.bfloat16)
    optimizer = fused.SGD(params, lr=1.0)
    load_sums(optimizer, None, {1: torch.full((4,), 1.0 + 2**-12)})
    assert params[0].grad is None
    assert_same(params[1].grad, torch.ones(4).bfloat16())
    assert optimizer._sums is None
    assert not params[0]._post_accumulate_grad_hooks


def test_sums_of_another_model_are_refused(path, make_params):
    optimizer = fused.SGD(make_params([(3,), (4,)]), lr=1.0)
    with pytest.raises(ValueError, match="float32 sum of gradient 1 belongs to no float16 or"):
        GradientSums(optimizer).load_state_dict({1: torch.ones(4)})


def test_remove(path, make_params):
    params = make_params([(3,)], dtype=torch.bfloat16)
    optimizer = fused.SGD(params, lr=1.0)
    sums = GradientSums(optimizer)
    backward(params, [torch.ones(3).bfloat16()])
    optimizer.step()
    sums.remove()
    backward(params, [torch.ones(3).bfloat16()])
    assert params[0].grad is not None
    before = params[0].detach().clone()
    optimizer.step()
    assert_same(params[0].detach(), before - 1.0)


def test_kept_gradients(path, make_params):
    """With `set_to_none=False` a parameter that is not used again counts with a zero gradient."""
    params = make_params([(3,), (4,)], dtype=torch.bfloat16)
    optimizer = fused.AdamW(params, lr=0.1)
    sums = GradientSums(optimizer)
    backward(params, [torch.ones(3).bfloat16(), torch.ones(4).bfloat16()])
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert all(not sums.gradient(p).any() for p in params)
    backward(params, [torch.ones(3).bfloat16(), None])
    optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in params] == [2.0, 2.0]


def test_sums_and_norms_in_backward_exclude_each_other(native_path, make_params):
    optimizer = fused.SGD(make_params([(3,)], dtype=torch.bfloat16), lr=1.0)
    optimizer.enable_overlap_norm()
    with pytest.raises(RuntimeError, match="exclude each other"):
        GradientSums(optimizer)
    optimizer.disable_overlap_norm()
    GradientSums(optimizer)
    with pytest.raises(RuntimeError, match="exclude each other"):
        optimizer.enable_overlap_norm()


@pytest.mark.filterwarnings("ignore:Using backward")
def test_deep_graphs_of_gradients(path):
    """Gradients that are part of a graph themselves are summed without it."""
    param = nn.Parameter(torch.ones(3).bfloat16())
    sums = GradientSums(fused.SGD([param], lr=1.0))
    (param**3).sum().backward(create_graph=True)
    assert not sums.gradient(param).requires_grad
