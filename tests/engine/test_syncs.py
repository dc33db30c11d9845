"""A trainer with the default hooks on a GPU that never waits for it; on a CPU without the watch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fasttrain.core import fused
from fasttrain.core.update import GradClip
from fasttrain.engine import (
    AMPTrainer,
    CommonMetricPrinter,
    HookBase,
    IterationTimer,
    JSONWriter,
    LRScheduler,
    PeriodicWriter,
    SimpleTrainer,
)

NUM_KEYS, WARMUP, WATCHED, PERIOD = 20, 20, 50, 10
TOTAL = WARMUP + WATCHED + 10
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class ManyLosses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        error = (self.layers(batch).squeeze(-1) - batch.sum(1)).float().square().mean()
        return {f"loss_{index}": error / (index + 1) for index in range(NUM_KEYS)}


class SyncWatch(HookBase):
    """From one iteration to another every wait for the GPU is an error."""

    def __init__(self) -> None:
        self.watched = 0

    def before_step(self) -> None:
        if self.trainer.iter == WARMUP:
            set_mode("error")
        if self.trainer.iter == WARMUP + WATCHED:
            set_mode("default")
        self.watched += WARMUP <= self.trainer.iter < WARMUP + WATCHED


def set_mode(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, on_gpu])])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the training is; a GPU's sync debug mode is off again afterwards."""
    yield request.param
    set_mode("default")


def make_trainer(
    device: str, precision: torch.dtype | None, optimizer_class: Any, metrics: Path, hook: HookBase
) -> SimpleTrainer:
    """Clipping, timer, schedule, and writers every ten iterations; `hook` comes first."""
    model = ManyLosses().to(device)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(8, 16, generator=generator).to(device) for _ in range(8)]
    optimizer = optimizer_class(model.parameters(), lr=0.01)
    clip = GradClip(max_norm=1.0)
    trainer: SimpleTrainer
    if precision is None:
        trainer = SimpleTrainer(model, batches, optimizer, clip=clip)
    else:
        trainer = AMPTrainer(model, batches, optimizer, precision=precision, clip=clip)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / (2 * TOTAL))
    writer = PeriodicWriter([CommonMetricPrinter(TOTAL), JSONWriter(metrics)], PERIOD)
    trainer.register_hooks([hook, IterationTimer(), LRScheduler(optimizer, schedule), writer])
    return trainer


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("optimizer_class", [fused.AdamW, fused.SGD])
def test_fifty_iterations_without_a_wait(
    tmp_path: Path, device: str, precision: torch.dtype | None, optimizer_class: Any
) -> None:
    watch, metrics = SyncWatch(), tmp_path / "metrics.json"
    trainer = make_trainer(device, precision, optimizer_class, metrics, watch)
    trainer.train(0, TOTAL)
    assert watch.watched == WATCHED
    lines = metrics.read_text().splitlines()
    shown = [json.loads(line) for line in lines]
    assert [line["iteration"] for line in shown] == list(range(PERIOD - 1, TOTAL, PERIOD))
    for line in shown:
        assert {f"loss_{index}" for index in range(NUM_KEYS)} <= set(line)
        assert {"total_loss", "data_time", "lr"} <= set(line)
    assert shown[-1]["total_loss"] < shown[0]["total_loss"]


class Sleep(HookBase):
    """Keeps the GPU busy from one iteration on; notes whether it still is three later."""

    def __init__(self) -> None:
        self.still_busy: bool | None = None

    def before_step(self) -> None:
        if self.trainer.iter == WARMUP + 2:
            torch.cuda._sleep(1_000_000_000)  # about half a second
            self.woken = torch.cuda.Event()
            self.woken.record()
        if self.trainer.iter == WARMUP + 5:
            self.still_busy = not self.woken.query()


@pytest.mark.gpu
@on_gpu
def test_the_host_runs_ahead_of_a_busy_gpu(tmp_path: Path) -> None:
    sleep = Sleep()
    make_trainer("cuda", torch.float16, fused.AdamW, tmp_path / "metrics.json", sleep).train(
        0, TOTAL
    )
    assert sleep.still_busy
