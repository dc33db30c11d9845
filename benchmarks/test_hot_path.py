"""The hot path under pytest-benchmark: what one call costs, beside the peer's where it installs.

    pytest benchmarks/test_hot_path.py                      a table per group
    pytest benchmarks/test_hot_path.py --benchmark-autosave --benchmark-compare

pytest-benchmark times one contestant after the other, which tracks a change from commit to commit.
Claims against peers come from the `bench_*.py` scripts beside this file, which interleave them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.core import checkpoint, fused
from fasttrain.core.store import ScalarStore
from fasttrain.core.update import GradClip, Updater
from fasttrain.logging import HistoryBuffer

KEYS = [f"loss_{i}" for i in range(20)]
LENGTH = 100_000


def filled(buffer_class: Any) -> Any:
    return buffer_class([0.5] * LENGTH, [1] * LENGTH)


def peer(module: str, name: str) -> Any:
    return getattr(pytest.importorskip(module), name)


@pytest.mark.benchmark(group="HistoryBuffer.update after 100,000 entries")
@pytest.mark.parametrize("package", ["fasttrain", "mmengine"])
def test_history_update(benchmark: Any, package: str) -> None:
    buffer = filled(
        HistoryBuffer if package == "fasttrain" else peer(f"{package}.logging", "HistoryBuffer")
    )
    benchmark(buffer.update, 1.5)
    assert buffer.current() == 1.5


@pytest.mark.benchmark(group="20 scalars into the store")
@pytest.mark.parametrize("kind", ["floats", "tensors"])
def test_put_many(benchmark: Any, kind: str) -> None:
    store = ScalarStore()
    value: Any = 0.5 if kind == "floats" else torch.tensor(0.5)
    scalars = dict.fromkeys(KEYS, value)
    benchmark(store.put_many, scalars, "train/")
    assert store.series("train/loss_7").current() == 0.5


def small_tensors() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 4097, (400,), generator=generator).tolist()
    params = [nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
    return params


def ours(params: list[nn.Parameter]) -> Callable[[], Any]:
    updater = Updater(fused.AdamW(params, lr=1e-6), clip=GradClip(max_norm=1.0))
    updater.count = 1
    return updater.step


def torchs(params: list[nn.Parameter], **kind: bool) -> Callable[[], Any]:
    optimizer = torch.optim.AdamW(params, lr=1e-6, **kind)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()

    return step


@pytest.mark.benchmark(group="clip and AdamW over 400 small tensors")
@pytest.mark.parametrize("kind", ["fasttrain", "fused", "foreach"])
def test_step(benchmark: Any, kind: str) -> None:
    params = small_tensors()
    before = params[0].detach().clone()
    benchmark(ours(params) if kind == "fasttrain" else torchs(params, **{kind: True}))
    assert not torch.equal(params[0], before)


@pytest.mark.benchmark(group="64 MB to a file")
@pytest.mark.parametrize("kind", ["fasttrain", "torch.save"])
def test_save(benchmark: Any, kind: str, tmp_path: Path) -> None:
    state = {"weights": [torch.randn(1 << 20) for _ in range(16)]}
    path = tmp_path / "state.pth"
    save = checkpoint.save if kind == "fasttrain" else torch.save
    benchmark.pedantic(save, (state, path), rounds=5, warmup_rounds=1)
    loaded = torch.load(path, weights_only=True)
    assert torch.equal(loaded["weights"][3], state["weights"][3])
