"""A whole run on a GPU that never waits for it; on a CPU the same run, without the watch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from fasttrain.hooks import Hook
from fasttrain.model import BaseModel
from fasttrain.registry import DATASETS, MODELS

NUM_KEYS, WARMUP, WATCHED = 20, 10, 50
TOTAL = WARMUP + WATCHED + 2
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@DATASETS.register_module(force=True)
class ManyPoints(Dataset):
    """Enough points for the whole run in one pass."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(8 * TOTAL, 16, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"inputs": self.x[index], "data_samples": self.x[index].sum()}


@MODELS.register_module(force=True)
class ManyLosses(BaseModel):
    """A small network whose loss comes in twenty parts."""

    def __init__(self, data_preprocessor: Any = None) -> None:
        super().__init__(data_preprocessor)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        error = (self.layers(inputs).squeeze(-1) - data_samples).float().square().mean()
        return {f"loss_{index}": error / (index + 1) for index in range(NUM_KEYS)}


class SyncWatch(Hook):
    """From one iteration to another every wait for the GPU is an error."""

    priority = 0  # before everybody else: what comes after it belongs to the iteration

    def __init__(self) -> None:
        self.watched = 0

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == WARMUP:
            set_mode("error")
        if runner.iter == WARMUP + WATCHED:
            set_mode("default")
        self.watched += WARMUP <= runner.iter < WARMUP + WATCHED


def set_mode(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, on_gpu])])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where the run is; a GPU's sync debug mode is off again afterwards."""
    if request.param == "cpu" and torch.cuda.is_available():
        pytest.skip("the Runner takes the GPU here")
    yield request.param
    set_mode("default")


@pytest.fixture
def build(make_runner: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Makes the runner: clipping, mixed precision on demand, a log line every ten iterations."""

    def make(wrapper: str, accumulative_counts: int, copies: str) -> Any:
        amp = {"dtype": "float16" if device == "cuda" else "bfloat16", "loss_scale": "dynamic"}
        preprocessor = {"type": "BaseDataPreprocessor", "non_blocking": copies == "non_blocking"}
        return make_runner(
            model={"type": "ManyLosses", "data_preprocessor": preprocessor},
            train_dataloader={
                "dataset": {"type": "ManyPoints"},
                "sampler": {"type": "InfiniteSampler", "shuffle": True},
                "collate_fn": {"type": "default_collate"},
                "batch_size": 8,
                "num_workers": 0,
                "pin_memory": device == "cuda",
            },
            train_cfg={"by_epoch": False, "max_iters": TOTAL, "prefetch": copies == "prefetch"},
            optim_wrapper={
                "type": wrapper,
                "optimizer": {"type": "AdamW", "lr": 0.01},
                "clip_grad": {"max_norm": 1.0},
                "accumulative_counts": accumulative_counts,
                **(amp if wrapper == "AmpOptimWrapper" else {}),
            },
            param_scheduler={"type": "CosineAnnealingLR", "by_epoch": False, "T_max": TOTAL},
            default_hooks={"logger": {"type": "LoggerHook", "interval": 10}},
            log_processor={"type": "LogProcessor", "by_epoch": False},
            visualizer={"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
            val_dataloader=None,
            val_cfg=None,
            val_evaluator=None,
        )

    return make


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.filterwarnings("ignore:Detected call of `scheduler.step")  # before a first step is due
@pytest.mark.parametrize("copies", ["prefetch", "non_blocking"])
@pytest.mark.parametrize(
    ("wrapper", "accumulative_counts"),
    [("OptimWrapper", 1), ("AmpOptimWrapper", 1), ("AmpOptimWrapper", 2)],
)
def test_fifty_iterations_without_a_wait(
    build: Callable[..., Any],
    tmp_path: Path,
    device: str,
    wrapper: str,
    accumulative_counts: int,
    copies: str,
) -> None:
    runner, watch = build(wrapper, accumulative_counts, copies), SyncWatch()
    runner.register_hook(watch)
    runner.train()
    assert watch.watched == WATCHED
    assert next(runner.model.parameters()).device.type == device
    lines = next((tmp_path / "work").glob("*/vis_data/scalars.json")).read_text().splitlines()
    shown = [json.loads(line) for line in lines]
    assert [line["step"] for line in shown] == list(range(10, TOTAL, 10))
    for line in shown:
        assert {f"loss_{index}" for index in range(NUM_KEYS)} <= set(line)
        assert {"loss", "lr", "grad_norm", "time", "data_time"} <= set(line)
    assert shown[-1]["loss"] < shown[0]["loss"]


class Sleep(Hook):
    """Keeps the GPU busy from one iteration on; notes whether it still is three later."""

    priority = 0

    def __init__(self) -> None:
        self.still_busy: bool | None = None

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == WARMUP + 2:
            torch.cuda._sleep(1_000_000_000)  # about half a second
            self.woken = torch.cuda.Event()
            self.woken.record()
        if runner.iter == WARMUP + 5:
            self.still_busy = not self.woken.query()


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=[pytest.mark.gpu, on_gpu])])
def test_the_host_runs_ahead_of_a_busy_gpu(build: Callable[..., Any], device: str) -> None:
    runner, sleep = build("AmpOptimWrapper", 1, "prefetch"), Sleep()
    runner.register_hook(sleep)
    runner.train()
    assert sleep.still_busy
