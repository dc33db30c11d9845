"""The norm taken in backward equals the norm of a pass of its own, whatever happened in between."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fasttrain.core import fused
from fasttrain.core.fused.overlap import OverlapNorm

CLIP = SimpleNamespace(type="norm", max_norm=0.1, norm_type=2.0, error_if_nonfinite=False)


class Tied(nn.Module):
    """A model that uses one weight twice and leaves one parameter unused."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(64, 64)
        self.outer = nn.Linear(64, 3)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.outer(self.inner(torch.relu(self.inner(x))))


@pytest.fixture
def models(native_path):
    """The same model twice: with sums in backward, and with a norm pass."""
    pair = [Tied(), Tied()]
    optimizers = [fused.AdamW(m.parameters(), lr=0.01) for m in pair]
    overlap = optimizers[0].enable_overlap_norm()
    return pair, optimizers, overlap


def backward(model, seed, scale=1.0):
    torch.manual_seed(seed)
    (model(torch.randn(8, 64)).square().mean() * scale).backward()


@pytest.fixture
def collected(monkeypatch):
    """What each step got from the hooks: a sum, or a negative number."""
    seen = []
    collect = OverlapNorm.collect
    monkeypatch.setattr(
        OverlapNorm, "collect", lambda self, p: seen.append(collect(self, p)) or seen[-1]
    )
    return seen


def check_equal(models, norms):
    torch.testing.assert_close(norms[0], norms[1])
    for left, right in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("batches", [1, 3])
def test_same_steps(models, collected, batches):
    pair, optimizers, _ = models
    for step in range(3):
        for model in pair:
            for batch in range(batches):
                backward(model, 10 * step + batch)
        norms = [o.fused_step(clip=CLIP, divisor=batches) for o in optimizers]
        check_equal(pair, norms)
        for optimizer in optimizers:
            optimizer.zero_grad()
    assert len(collected) == 3 and all(total > 0 for total in collected)


@pytest.mark.parametrize("change", ["in_place", "replaced", "missing"])
def test_changed_gradients_are_read_again(models, collected, change):
    pair, optimizers, overlap = models
    for model in pair:
        overlap.active = change != "missing"
        backward(model, 1)
        if change == "in_place":
            model.outer.bias.grad.mul_(50)
        if change == "replaced":
            model.outer.bias.grad = torch.full((3,), 9.0)
    norms = [o.fused_step(clip=CLIP) for o in optimizers]
    check_equal(pair, norms)
    assert collected == [-1.0]


def test_non_finite_gradients_are_seen(models):
    pair, optimizers, _ = models
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    backward(pair[0], 1, float("inf"))
    before = pair[0].outer.weight.detach().clone()
    optimizers[0].fused_step(scaler=scaler)
    scaler.update()
    assert torch.equal(before, pair[0].outer.weight) and scaler.get_scale() == 2.0


def test_disable(models):
    pair, optimizers, _ = models
    optimizers[0].disable_overlap_norm()
    for model in pair:
        backward(model, 1)
        assert not model.outer.weight._post_accumulate_grad_hooks
    check_equal(pair, [o.fused_step(clip=CLIP) for o in optimizers])


def test_refuses_without_native_passes(monkeypatch):
    monkeypatch.setenv("FASTTRAIN_NATIVE", "0")
    with pytest.raises(RuntimeError, match="overlap_norm needs the native passes"):
        fused.AdamW([nn.Parameter(torch.ones(1))]).enable_overlap_norm()


def test_refuses_in_distributed_training(native_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="leave it off in distributed training"):
        fused.AdamW([nn.Parameter(torch.ones(1))]).enable_overlap_norm()
