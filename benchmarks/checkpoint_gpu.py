"""The GPU's part of bench_checkpoint: what a save of a large state costs the training."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import Report, Spread
from torch import nn

from fasttrain.core import fused
from fasttrain.core.checkpoint import Writer

GIGABYTE = 10**9
STATE_BYTES_PER_PARAM = 12  # float32 weights and two moments
LIMIT_S = 5e-3
WIDTH = 4096
HEADROOM = 2.0  # forward and backward take so many times as long as the copy
DEVICE = "cuda"


@dataclass
class Sample:
    """One iteration, in seconds.

    Attributes:
        call: the host's time in the call that saves; 0.0 without a save.
        wait: how long the GPU waited between the backward pass and the optimizer's step.
        whole: from an idle GPU to an idle GPU.
        durable: from the call until the file is durable.
    """

    call: float
    wait: float
    whole: float
    durable: float = 0.0


@dataclass
class Samples:
    plain: list[Sample] = field(default_factory=list)
    saving: list[Sample] = field(default_factory=list)
    first: Sample | None = None  # takes the host memory


class Training:
    """Linear layers that fill the wanted size of state, and a batch that keeps the GPU busy."""

    def __init__(self, gigabytes: float, rows: int) -> None:
        per_layer = WIDTH * WIDTH * STATE_BYTES_PER_PARAM
        num_layers = max(1, round(gigabytes * GIGABYTE / per_layer))
        layers = [nn.Linear(WIDTH, WIDTH, bias=False, device=DEVICE) for _ in range(num_layers)]
        self.model = nn.Sequential(*layers)
        self.optimizer = fused.AdamW(self.model.parameters(), lr=1e-5)
        self.inputs = torch.randn(rows, WIDTH, device=DEVICE)
        self.num_bytes = num_layers * per_layer
        self._before_step: Any = None

    def state(self) -> dict[str, Any]:
        return {"state_dict": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def mark_steps(self) -> None:
        """From now on note when the GPU is let into a step; after the first save."""
        self._before_step = torch.cuda.Event(enable_timing=True)
        self.optimizer.register_step_pre_hook(lambda *_: self._before_step.record())

    def iterate(self, writer: Writer | None, path: Path) -> Sample:
        """Save, if there is a writer, and train one iteration."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        call = 0.0
        if writer is not None:
            writer.submit(self.state(), path, updated_by=[self.optimizer])
            call = time.perf_counter() - start
        self.model(self.inputs).square().mean().backward()
        done: Any = torch.cuda.Event(enable_timing=True)
        done.record()
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch.cuda.synchronize()
        whole = time.perf_counter() - start
        marked = self._before_step is not None
        return Sample(call, done.elapsed_time(self._before_step) / 1e3 if marked else 0.0, whole)


def copy_seconds(num_bytes: int) -> float:
    """How long a copy of so many bytes to page-locked memory takes, by one of a gigabyte."""
    source = torch.empty(GIGABYTE, dtype=torch.uint8, device=DEVICE)
    target = torch.empty(GIGABYTE, dtype=torch.uint8, pin_memory=True)
    elapsed_s = math.inf
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        elapsed_s = min(elapsed_s, time.perf_counter() - start)
    return elapsed_s * num_bytes / GIGABYTE


def covering_rows(gigabytes: float, copy_s: float) -> int:
    """Rows of a batch whose forward and backward take longer than the copy."""
    training = Training(min(gigabytes, 1.0), 1024)
    for _ in range(3):
        sample = training.iterate(None, Path())
    per_row = sample.whole / 1024 * max(1.0, gigabytes)
    return max(256, 256 * math.ceil(HEADROOM * copy_s / per_row / 256))


def room_for(num_bytes: int, folders: list[Path]) -> Path | None:
    """The first folder with space for a file of so many bytes and for the one that replaces it."""
    for folder in folders:
        if folder.is_dir() and os.access(folder, os.W_OK):
            stats = os.statvfs(folder)
            if stats.f_bavail * stats.f_frsize > 2.1 * num_bytes:
                return folder
    return None


def measure(training: Training, folder: Path, saves: int) -> Samples:
    """Iterations with a save and without one, in turn."""
    samples, writer, path = Samples(), Writer(), folder / "state.pth"
    try:
        training.iterate(None, path)  # makes the optimizer's states
        samples.first = training.iterate(writer, path)
        writer.drain()
        training.mark_steps()
        for _ in range(saves):
            samples.plain.append(training.iterate(None, path))
            start = time.perf_counter()
            sample = training.iterate(writer, path)
            writer.drain()
            sample.durable = time.perf_counter() - start
            samples.saving.append(sample)
    finally:
        writer.close()
    return samples


def check(training: Training, path: Path) -> None:
    """The file holds the weights as they were at the save, the last step before this one's.

    Raises:
        AssertionError: it does not.
    """
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert loaded["state_dict"].keys() == training.model.state_dict().keys()
    moved = [
        (value.to(DEVICE) - training.model.state_dict()[name]).abs().amax()
        for name, value in loaded["state_dict"].items()
    ]
    largest = float(torch.stack(moved).amax())
    assert 0.0 < largest < 1e-3, f"saved weights are {largest} off after one step at 1e-5"


def report_gpu(report: Report, gigabytes: float, saves: int, folders: list[Path]) -> bool:
    """Check, time and print; whether the training stood still for less than the limit."""
    parent = room_for(int(gigabytes * GIGABYTE), folders)
    if parent is None:
        report.text(f"GPU: no room for {gigabytes:g} GB in any of {[*map(str, folders)]}.")
        return False
    copy_s = copy_seconds(int(gigabytes * GIGABYTE))
    rows = covering_rows(gigabytes, copy_s)
    training = Training(gigabytes, rows)
    folder = Path(tempfile.mkdtemp(prefix="fasttrain-bench-", dir=parent))
    try:
        samples = measure(training, folder, saves)
        check(training, folder / "state.pth")
    finally:
        shutil.rmtree(folder)
    assert samples.first is not None
    plain, saving = samples.plain, samples.saving
    stall = Spread.of([s.call + s.wait for s in saving])
    timed = {
        "host, in the call that saves": [s.call for s in saving],
        "GPU, waiting before the step, with a save": [s.wait for s in saving],
        "GPU, before the step, without one": [s.wait for s in plain],
        "iteration without a save": [s.whole for s in plain],
        "iteration with one": [s.whole for s in saving],
        "from the call to the durable file": [s.durable for s in saving],
    }
    lines = [[name, Spread.of(sample).seconds()] for name, sample in timed.items()]
    lines += [
        ["host, in the first call, which takes the host memory", f"{samples.first.call:.2f} s"],
        ["one plain copy of as much", f"{copy_s:.2f} s"],
    ]
    title = f"GPU: saves of {training.num_bytes / GIGABYTE:.1f} GB to {parent}"
    report.table(title, ["", "median (p10 .. p90)"], lines)
    report.text(
        f"Stall, call and wait together: {stall.seconds()}; the limit is {1e3 * LIMIT_S:g} ms. "
        f"Forward and backward over {rows} rows take {HEADROOM:g} times as long as the copy."
    )
    return stall.median < LIMIT_S
