"""Master weights, low-precision moments and stochastic rounding."""

from __future__ import annotations

import copy

import pytest
import torch

from fasttrain.core import fused
from fasttrain.core.fused.options import MASTER
from fasttrain.core.fused.shadow import join_halves, split_halves
from support import assert_same, check_save_and_resume

SHAPES = [(5,), (1500,), (3, 7)]
LOW = [torch.bfloat16, torch.float16]


def train(optimizer, params, set_grads, steps=20):
    for step in range(steps):
        set_grads(params, step)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("name", ["SGD", "AdamW", "Lion", "LAMB"])
def test_masters_train_as_float32(path, name, dtype, make_params, set_grads, assert_close):
    low = make_params(SHAPES, dtype=dtype)
    exact = [torch.nn.Parameter(p.detach().float()) for p in low]
    kwargs = {"lr": 0.003} | ({"momentum": 0.9} if name == "SGD" else {})
    cls = getattr(fused, name)
    ours = cls(low, master_weights=True, **kwargs)
    reference = cls(exact, fused=False, **kwargs)
    for step in range(20):
        set_grads(low, step)
        for left, right in zip(low, exact, strict=True):
            right.grad = left.grad.float()
        ours.step()
        reference.step()
    masters = [ours.state[p][MASTER] for p in low]
    assert all(m.dtype == torch.float32 for m in masters)
    assert_close(masters, exact, rtol=1e-4, atol=1e-5)
    assert_same([m.to(dtype) for m in masters], [p.detach() for p in low])
    moments = {v.dtype for s in ours.state.values() for k, v in s.items() if k != "step"}
    assert moments == {torch.float32}


def test_split_masters_hold_the_same_bits(path, make_params, set_grads):
    full = make_params(SHAPES, dtype=torch.bfloat16)
    split = make_params(SHAPES, dtype=torch.bfloat16)
    a = train(fused.AdamW(full, lr=0.003, master_weights=True), full, set_grads)
    b = train(fused.AdamW(split, lr=0.003, master_weights="split"), split, set_grads)
    for left, right in zip(full, split, strict=True):
        assert b.state[right][MASTER].dtype == torch.int16
        joined = join_halves(right.detach(), b.state[right][MASTER])
        assert_same(a.state[left][MASTER], joined)
        assert (left - right).abs().max() <= 0.01 * left.abs().max()


def test_split_halves_of_every_kind():
    values = torch.cat([torch.randn(1000), torch.randn(1000) * 1e-38, torch.tensor([0.0, -0.0])])
    high, rest = split_halves(values)
    assert_same(join_halves(high, rest), values)
    for value in (float("inf"), float("-inf"), float("nan")):
        high, rest = split_halves(torch.tensor([value]))
        assert_same(join_halves(high, rest), torch.tensor([value]))


def test_native_and_fallback_agree(native_path, monkeypatch, make_params, set_grads, assert_close):
    results = []
    for switch in ("0", "1"):
        monkeypatch.setenv("FASTTRAIN_NATIVE", switch)
        params = make_params(SHAPES, dtype=torch.bfloat16)
        optimizer = fused.AdamW(
            params,
            lr=0.003,
            master_weights="split",
            state_dtype=torch.bfloat16,
            stochastic_rounding=True,
            seed=5,
        )
        train(optimizer, params, set_grads, 3)
        results.append((params, [optimizer.state[p]["exp_avg"] for p in params]))
    assert_close(results[0][0], results[1][0], rtol=0.01, atol=1e-3)
    # The same hash rounds both: moments differ only where the last float32 bit decided.
    for left, right in zip(results[0][1], results[1][1], strict=True):
        assert (left != right).float().mean() < 0.01


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_stochastic_rounding_is_unbiased_and_seeded(path, name, make_params):
    """A gradient too small to change a rounded moment still moves its mean."""

    def mean_after(seed):
        params = [torch.nn.Parameter(torch.zeros(20_000))]
        key = {"SGD": "momentum_buffer", "AdamW": "exp_avg"}[name]
        kwargs = {"momentum": 0.9, "dampening": 0.9} if name == "SGD" else {"betas": (0.9, 0.9)}
        optimizer = getattr(fused, name)(
            params,
            lr=0.0,
            state_dtype=torch.bfloat16,
            stochastic_rounding=True,
            seed=seed,
            **kwargs,
        )
        params[0].grad = torch.ones(20_000)
        for _ in range(40 if name == "AdamW" else 1):
            optimizer.step()
        params[0].grad.fill_(1.003)
        optimizer.step()
        return optimizer.state[params[0]][key].clone()

    first = mean_after(0)
    assert first.unique().numel() > 1
    expected = 1.0003 if name == "SGD" else (1 - 0.9**40) * 0.9 + 0.1003
    assert abs(float(first.double().mean()) - expected) < 4e-4
    assert_same(first, mean_after(0))
    assert not torch.equal(first, mean_after(1))


@pytest.mark.parametrize("master", [False, True, "split"])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop"])
def test_resumes_bit_for_bit(path, name, master, stochastic, make_params, set_grads):
    class Part:
        def __init__(self):
            self.params = make_params([(5,), (300,)], dtype=torch.bfloat16)
            kwargs = {"lr": 0.01} | ({"momentum": 0.9} if name == "SGD" else {})
            self.optimizer = getattr(fused, name)(
                self.params,
                master_weights=master,
                state_dtype=torch.bfloat16 if stochastic else None,
                stochastic_rounding=stochastic,
                **kwargs,
            )

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


def test_loading_converts_between_precisions(path, make_params, set_grads):
    """A state saved in float32 continues with bfloat16 moments, and the other way round."""
    params = make_params(SHAPES)
    saved = copy.deepcopy(train(fused.AdamW(params), params, set_grads, 2).state_dict())
    low = fused.AdamW(params, state_dtype=torch.bfloat16)
    low.load_state_dict(saved)
    train(low, params, set_grads, 1)
    assert low.state[params[0]]["exp_avg"].dtype == torch.bfloat16
    back = fused.AdamW(params)
    back.load_state_dict(copy.deepcopy(low.state_dict()))
    train(back, params, set_grads, 1)
    assert back.state[params[0]]["exp_avg"].dtype == torch.float32
    assert float(back.state[params[0]]["step"]) == 4.0


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"master_weights": "half"}, "master_weights must be True, False or 'split', got 'half'"),
        ({"state_dtype": torch.float64}, "state_dtype must be torch.float32, .* got torch.float64"),
        ({"stochastic_rounding": True}, "set state_dtype=torch.bfloat16, got state_dtype=None"),
    ],
)
def test_wrong_options(kwargs, text):
    with pytest.raises(ValueError, match=text):
        fused.AdamW([torch.nn.Parameter(torch.ones(1))], **kwargs)
