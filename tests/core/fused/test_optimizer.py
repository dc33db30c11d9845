"""Torch's step semantics: groups, frozen parameters, hooks, schedulers, copies, layouts."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fasttrain.core import fused
from fasttrain.core.fused.binding import Binding
from fasttrain.core.fused.layouts import is_dense
from support import assert_same

CLIP = SimpleNamespace(type="norm", max_norm=0.5, norm_type=2.0, error_if_nonfinite=False)


@pytest.fixture
def pair(make_params):
    """Our AdamW and torch's on equal parameters."""
    ours, theirs = make_params(), make_params()
    return ours, fused.AdamW(ours, lr=0.01), theirs, torch.optim.AdamW(theirs, lr=0.01)


def test_is_a_torch_optimizer():
    optimizer = fused.AdamW([nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert isinstance(fused.SGD([nn.Parameter(torch.ones(1))], lr=1), torch.optim.SGD)
    assert optimizer.defaults["lr"] == 1e-3 and optimizer.defaults["weight_decay"] == 1e-2


def test_signature_shows_all_arguments():
    import inspect

    names = list(inspect.signature(fused.AdamW).parameters)
    assert names[:4] == ["params", "lr", "betas", "eps"]
    assert {"fused", "master_weights", "state_dtype", "stochastic_rounding", "seed"} <= set(names)


def test_closure(path, make_params):
    params = make_params([(3,)])
    optimizer = fused.SGD(params, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum()
        loss.backward()
        return loss

    first, second = optimizer.step(closure), optimizer.step(closure)
    assert second < first


def test_groups_change_midway(path, pair, set_grads, make_params, assert_close):
    ours, optimizer, theirs, reference = pair
    for step in range(6):
        for params, opt in ((ours, optimizer), (theirs, reference)):
            if step == 2:
                params += make_params([(9,)], seed=7)
                opt.add_param_group({"params": params[-1:], "lr": 0.05, "weight_decay": 0.0})
            if step == 4:
                opt.param_groups[0]["lr"] = 0.002
                opt.param_groups[1]["betas"] = (0.5, 0.9)
                opt.param_groups[1]["amsgrad"] = True
                opt.state[params[-1]]["max_exp_avg_sq"] = torch.zeros(9)
            set_grads(params, step)
            opt.step()
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_parameters_without_gradients_are_passed_over(path, pair, set_grads, assert_close):
    ours, optimizer, theirs, reference = pair
    for step in range(6):
        for params, opt in ((ours, optimizer), (theirs, reference)):
            set_grads(params, step)
            params[step % 3].grad = None
            if step < 3:
                params[5].grad = None
            opt.step()
    assert [float(optimizer.state[p]["step"]) for p in ours] == [
        float(reference.state[p]["step"]) for p in theirs
    ]
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_tensor_lr_is_read_every_step(path, make_params, set_grads, assert_close):
    ours, theirs = make_params(), make_params()
    optimizer = fused.SGD(ours, lr=torch.tensor(0.1))
    reference = torch.optim.SGD(theirs, lr=0.1)
    for step, lr in enumerate((0.1, 0.1, 0.5)):
        optimizer.param_groups[0]["lr"].fill_(lr)
        reference.param_groups[0]["lr"] = lr
        for params, opt in ((ours, optimizer), (theirs, reference)):
            set_grads(params, step)
            opt.step()
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_torch_schedulers(path, pair, set_grads, assert_close):
    ours, optimizer, theirs, reference = pair
    for params, opt in ((ours, optimizer), (theirs, reference)):
        scheduler = torch.optim.lr_scheduler.StepLR(opt, 2, gamma=0.5)
        for step in range(5):
            set_grads(params, step)
            opt.step()
            scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.0025
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_scheduler_sees_fused_step(path, pair, set_grads):
    ours, optimizer, _, _ = pair
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    set_grads(ours, 0)
    optimizer.fused_step()
    scheduler.step()  # would warn that it ran before the optimizer


@pytest.mark.parametrize("method", ["step", "fused_step"])
def test_step_hooks_fire_once(path, pair, set_grads, method):
    ours, optimizer, theirs, reference = pair
    set_grads(theirs, 0)
    reference.step()  # torch wraps its classes at their first use
    calls = []
    handles = [
        optimizer.register_step_pre_hook(lambda *a: calls.append("pre")),
        optimizer.register_step_post_hook(lambda *a: calls.append("post")),
    ]
    set_grads(ours, 0)
    getattr(optimizer, method)()
    for handle in handles:
        handle.remove()
    getattr(optimizer, method)()
    assert calls == ["pre", "post"]


def test_profiler_sees_the_step(path, pair, set_grads):
    ours, optimizer, _, _ = pair
    set_grads(ours, 0)
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    assert any(e.name == "Optimizer.step#AdamW.step" for e in profile.function_events)


def test_zero_grad(pair, set_grads):
    ours, optimizer, _, _ = pair
    set_grads(ours, 0)
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in ours)
    optimizer.zero_grad()
    assert all(p.grad is None for p in ours)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_on_alone(path, clone, make_params, set_grads, assert_close):
    params = make_params()
    optimizer = fused.AdamW(params, lr=0.01, state_dtype=torch.bfloat16)
    set_grads(params, 0)
    optimizer.step()
    twin = clone(optimizer)
    twin_params = twin.param_groups[0]["params"]
    for group, opt in ((params, optimizer), (twin_params, twin)):
        set_grads(group, 1)
        opt.step()
    assert twin._options == optimizer._options
    assert_same([p.detach() for p in params], [p.detach() for p in twin_params])


def test_fused_false_is_torch(native_path, make_params, set_grads):
    ours, theirs = make_params(), make_params()
    for params, opt in (
        (ours, fused.AdamW(ours, fused=False)),
        (theirs, torch.optim.AdamW(theirs)),
    ):
        for step in range(3):
            set_grads(params, step)
            opt.step()
    assert_same([p.detach() for p in theirs], [p.detach() for p in ours])


def test_replaced_storage_is_followed(path, pair, set_grads, assert_close):
    ours, optimizer, theirs, reference = pair
    for step in range(4):
        for params, opt in ((ours, optimizer), (theirs, reference)):
            if step == 2:
                params[1].data = params[1].data.clone() * 2
            set_grads(params, step)
            opt.step()
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_version_counters_move(path, make_params):
    param = make_params([(3,)])[0]
    frozen = make_params([(3,)])[0]
    optimizer = fused.SGD([param, frozen], lr=0.1)
    loss = (param * param.exp()).sum()
    param.grad = torch.ones(3)
    before = frozen._version
    optimizer.step()
    assert frozen._version == before
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_layouts(path, make_params, assert_close):
    """Channels last, transposed and gapped parameters, and gradients of another layout."""

    def build():
        torch.manual_seed(0)
        base = torch.randn(6, 8)
        return [
            nn.Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)),
            nn.Parameter(torch.randn(5, 3).t()),
            nn.Parameter(base[:, :4]),
            nn.Parameter(torch.randn(11)[3:]),
        ]

    ours, theirs = build(), build()
    optimizer, reference = fused.AdamW(ours, lr=0.01), torch.optim.AdamW(theirs, lr=0.01)
    for step in range(3):
        for params, opt in ((ours, optimizer), (theirs, reference)):
            torch.manual_seed(step)
            for param in params:
                param.grad = torch.randn(param.shape)  # contiguous, whatever the parameter is
            if step == 2:
                params[3].grad = torch.ones(1).expand(8)
            opt.step()
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_dense_layouts():
    assert is_dense(torch.empty(3, 4).t()) and is_dense(torch.empty(2, 1, 3)[:, :, :])
    assert not is_dense(torch.empty(3, 4)[:, :2]) and not is_dense(torch.empty(1).expand(3))


def test_other_kinds_take_torchs_path(native_path, caplog, assert_close):
    def build():
        torch.manual_seed(0)
        return [
            nn.Parameter(torch.randn(4)),
            nn.Parameter(torch.randn(3, dtype=torch.float64)),
            nn.Parameter(torch.randn(2, dtype=torch.complex64)),
        ]

    ours, theirs = build(), build()
    optimizer, reference = fused.Adam(ours, lr=0.01), torch.optim.Adam(theirs, lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    with caplog.at_level(logging.INFO, logger="fasttrain"):
        for step in range(3):
            torch.manual_seed(step)
            for left, right in zip(ours, theirs, strict=True):
                right.grad = torch.randn_like(right)
                left.grad = right.grad * 8
            optimizer.fused_step(scaler=scaler, clip=CLIP, zero=True)
            scaler.update()
            torch.nn.utils.clip_grad_norm_(theirs, 0.5)
            reference.step()
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
        assert not left.grad.any()
    said = [r.message for r in caplog.records if r.name.startswith("fasttrain.core.fused")]
    assert said == [
        "Adam: torch's own step updates 1 parameter(s) with dtype torch.float64, "
        "1 parameter(s) with dtype torch.complex64"
    ]


def test_non_finite_outside_the_table_skips_all(native_path):
    params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
    optimizer = fused.SGD(params, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    params[0].grad = torch.ones(2)
    params[1].grad = torch.tensor([1.0, float("nan")], dtype=torch.float64)
    optimizer.fused_step(scaler=scaler)
    assert all(bool((p == 1).all()) for p in params)
    scaler.update()
    assert scaler.get_scale() == 4.0


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_take_torchs_path(path, assert_close):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2))

    models = build(), build()
    optimizers = [
        fused.SGD(models[0].parameters(), lr=0.1),
        torch.optim.SGD(models[1].parameters(), lr=0.1),
    ]
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randint(0, 10, (6,))).pow(2).sum().backward()
            optimizer.step()
    assert_close(list(models[0].parameters()), list(models[1].parameters()), 1e-5, 1e-6)


def test_two_threads_step_two_optimizers(native_path, make_params, set_grads):
    def train(results, index):
        params = make_params([(50_000,), (300,)], seed=index)
        optimizer = fused.AdamW(params, lr=0.01)
        grads = [torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) for p in params]
        for _ in range(30):
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad.clone()
            optimizer.fused_step(clip=CLIP)
        results[index] = [p.detach() for p in params]

    alone: dict[int, list[torch.Tensor]] = {}
    together: dict[int, list[torch.Tensor]] = {}
    for index in (0, 1):
        train(alone, index)
    threads = [threading.Thread(target=train, args=(together, i)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(alone[0], together[0])
    assert_same(alone[1], together[1])


def test_one_binding_serves_many_steps(native_path, pair, set_grads, monkeypatch):
    ours, optimizer, _, _ = pair
    built = []
    fill = Binding._fill
    monkeypatch.setattr(Binding, "_fill", lambda *a: (built.append(1), fill(*a)))
    for step in range(5):
        optimizer.zero_grad()
        set_grads(ours, step)
        optimizer.param_groups[0]["lr"] *= 0.9
        optimizer.step()
    assert len(built) == 1


def test_arguments_are_checked():
    param = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        fused.AdamW([param], lr=-1)
    with pytest.raises(ValueError, match=r"lr must be >= 0, got -1"):
        fused.Lion([param], lr=-1)
    with pytest.raises(ValueError, match=r"betas\[1\] must be in \[0, 1\), got 1"):
        fused.LAMB([param], betas=(0.9, 1))


group_strategy = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(0, 40), min_size=1, max_size=4),
        "lr": st.floats(1e-4, 0.1),
        "weight_decay": st.floats(0, 0.2),
        "amsgrad": st.booleans(),
        "maximize": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(group_strategy, min_size=1, max_size=4),
    missing=st.sets(st.integers(0, 15)),
    seed=st.integers(0, 1000),
)
def test_any_group_structure(groups, missing, seed):
    def build(factory):
        torch.manual_seed(seed)
        own = [{**g, "params": [nn.Parameter(torch.randn(n)) for n in g["sizes"]]} for g in groups]
        for group in own:
            del group["sizes"]
        return factory(own), [p for group in own for p in group["params"]]

    (ours, left), (theirs, right) = build(fused.AdamW), build(torch.optim.AdamW)
    for step in range(3):
        torch.manual_seed(step)
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            b.grad = torch.randn_like(b) if (index + step) not in missing else None
            a.grad = None if b.grad is None else b.grad.clone()
        ours.step()
        theirs.step()
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["step", "fused_step"])
def test_a_call_before_the_next_step_comes_once_and_sees_the_old_weights(name):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = fused.SGD([weight], lr=1.0)
    seen = []
    optimizer.before_next_step(lambda: seen.append(weight.tolist()))
    for _ in range(2):
        weight.grad = torch.ones(2)
        getattr(optimizer, name)()
    assert seen == [[1.0, 1.0]]
    assert weight.tolist() == [-1.0, -1.0]
