"""Every rule on every code path against torch's optimizers and against a float64 reference."""

from __future__ import annotations

import copy

import pytest
import torch

from fasttrain.core.fused.shadow import join_halves
from support import assert_same, check_save_and_resume

STEPS = 100


def run(optimizer, params, set_grads, steps, start=0, scale=1.0):
    for step in range(start, start + steps):
        set_grads(params, step, scale)
        optimizer.step()


def test_agrees_with_torch_over_100_steps(case, path, make_params, set_grads, assert_close):
    shapes = [(33, 65), (0,), (1025,)]
    ours, theirs = make_params(shapes), make_params(shapes)
    run(case.ours(ours, **case.kwargs), ours, set_grads, STEPS)
    run(case.theirs(theirs), theirs, set_grads, STEPS)
    assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


def test_agrees_with_float64(case, native_path, make_params, set_grads, assert_close):
    """In float64 torch's own step runs (also inside ours), so it is the reference."""
    ours = make_params()
    exact = make_params(dtype=torch.float64)
    optimizer = case.ours(ours, **case.kwargs)
    reference = case.theirs(exact)
    run(optimizer, ours, set_grads, 20)
    run(reference, exact, set_grads, 20)
    assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_instruction_sets_give_the_same_bits(
    case, native_path, monkeypatch, make_params, set_grads
):
    from fasttrain import native

    results = []
    for name in native.module().cpu_paths():
        monkeypatch.setenv("FASTTRAIN_CPU_PATH", name)
        params = make_params()
        run(case.ours(params, **case.kwargs), params, set_grads, 3)
        results.append([p.detach() for p in params])
    for other in results[1:]:
        assert_same(results[0], other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_parameters(case, native_path, dtype, make_params, set_grads, assert_close):
    """One step computes in float32 and rounds once."""
    ours = make_params(dtype=dtype)
    exact = [torch.nn.Parameter(p.detach().float()) for p in ours]
    optimizer, reference = case.ours(ours, **case.kwargs), case.theirs(exact)
    set_grads(ours, 0)
    for left, right in zip(ours, exact, strict=True):
        right.grad = left.grad.float()
    optimizer.step()
    reference.step()
    assert_close(ours, exact, rtol=1.1 * torch.finfo(dtype).eps, atol=2e-3)


@pytest.mark.parametrize("master", [True, "split"])
def test_masters_agree_with_float64(case, native_path, master, make_params, set_grads):
    """Every rule over 100 steps: bfloat16 parameters move as exactly as float32 ones."""
    shapes = [(7,), (33, 5), (0,)]
    ours = make_params(shapes, dtype=torch.bfloat16)
    exact = [torch.nn.Parameter(p.detach().double()) for p in ours]
    optimizer = case.ours(ours, master_weights=master, **case.kwargs)
    reference = case.theirs(exact)
    for step in range(STEPS):
        set_grads(ours, step)
        for left, right in zip(ours, exact, strict=True):
            right.grad = left.grad.double()
        optimizer.step()
        reference.step()
    eps = torch.finfo(torch.bfloat16).eps
    for left, right in zip(ours, exact, strict=True):
        torch.testing.assert_close(left.double(), right.detach(), rtol=0.51 * eps, atol=2e-4)
        kept = optimizer.state[left]["master_param"]
        whole = kept if master is True else join_halves(left.detach(), kept)
        torch.testing.assert_close(whole.double(), right.detach(), rtol=2e-4, atol=2e-4)


def test_state_dict_goes_both_ways(case, path, make_params, set_grads, assert_close):
    ours, theirs = make_params(), make_params()
    our_optimizer, their_optimizer = case.ours(ours, **case.kwargs), case.theirs(theirs)
    run(our_optimizer, ours, set_grads, 3)
    run(their_optimizer, theirs, set_grads, 3)
    ours_saved = copy.deepcopy(our_optimizer.state_dict())
    theirs_saved = copy.deepcopy(their_optimizer.state_dict())
    for left, right in zip(
        ours_saved["state"].values(), theirs_saved["state"].values(), strict=True
    ):
        kept = {k for k, v in right.items() if v is not None}
        assert set(left) == kept
    our_optimizer.load_state_dict(theirs_saved)
    their_optimizer.load_state_dict(ours_saved)
    run(our_optimizer, ours, set_grads, 3, start=3)
    run(their_optimizer, theirs, set_grads, 3, start=3)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_resumes_bit_for_bit(case, path, make_params, set_grads):
    class Part:
        def __init__(self):
            self.params = make_params([(5,), (300,)])
            self.optimizer = case.ours(self.params, **case.kwargs)

        def state_dict(self):
            return {"params": self.params, "optimizer": self.optimizer.state_dict()}

        def load_state_dict(self, state):
            for param, saved in zip(self.params, state["params"], strict=True):
                param.data.copy_(saved)
            self.optimizer.load_state_dict(state["optimizer"])

    def advance(part, step):
        set_grads(part.params, step)
        part.optimizer.step()
        return [p.detach().clone() for p in part.params]

    check_save_and_resume(Part, advance, steps=6, cut=3)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "LAMB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_tables(native_path, name, dtype, make_params, set_grads, assert_close):
    """Several segments per tensor, several threads, and a tensor that starts off any alignment."""
    from fasttrain.core import fused

    shapes = [(100_003,), (3,), (40_001,)]
    ours, exact = make_params(shapes, dtype=dtype), make_params(shapes, dtype=dtype)
    ours[0].data = torch.cat([ours[0].data[:1], ours[0].data])[1:]
    exact = [torch.nn.Parameter(p.detach().float()) for p in exact]
    master = dtype != torch.float32
    optimizer = getattr(fused, name)(ours, lr=0.01, master_weights=master)
    reference = getattr(fused, name)(exact, lr=0.01, fused=False)
    for step in range(2):
        set_grads(ours, step)
        for left, right in zip(ours, exact, strict=True):
            right.grad = left.grad.float()
        optimizer.step()
        reference.step()
    eps = torch.finfo(dtype).eps
    assert_close(ours, exact, rtol=max(eps, 1e-5), atol=1e-5)
