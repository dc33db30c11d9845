"""Profilers and memory statistics of chosen iterations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fasttrain.engine.trainer_base import HookBase

logger = logging.getLogger("fasttrain.engine.hooks")


class TorchProfiler(HookBase):
    """Profiles the iterations for which `enable_predicate(trainer)` is true, one trace each.

    Args:
        enable_predicate: asked before every step.
        output_dir: gets `profiler-trace-iter{N}.json`, for chrome://tracing or Perfetto.
        activities: what to record; CPU, and CUDA when there is a device, when None.
        save_tensorboard: write TensorBoard traces into `{output_dir}/log` too.
    """

    def __init__(
        self,
        enable_predicate: Callable[[Any], bool],
        output_dir: str | Path,
        *,
        activities: list[ProfilerActivity] | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        self._enable_predicate = enable_predicate
        self._output_dir = Path(output_dir)
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: profile | None = None

    def before_step(self) -> None:
        if not self._enable_predicate(self.trainer):
            return
        activities = self._activities or [
            ProfilerActivity.CPU,
            *([ProfilerActivity.CUDA] if torch.cuda.is_available() else []),
        ]
        on_ready = None
        if self._save_tensorboard:
            on_ready = torch.profiler.tensorboard_trace_handler(
                str(self._output_dir / "log"), f"profiler-tensorboard-iter{self.trainer.iter}"
            )
        self._profiler = profile(
            activities=activities,
            on_trace_ready=on_ready,
            record_shapes=True,
            profile_memory=True,
        )
        self._profiler.__enter__()

    def after_step(self) -> None:
        if self._profiler is None:
            return
        self._stop()
        path = self._output_dir / f"profiler-trace-iter{self.trainer.iter}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._save_tensorboard:
            self._last.export_chrome_trace(str(path))
        logger.info("\n%s", self._last.key_averages().table(row_limit=20))

    def after_train(self) -> None:
        if self._profiler is not None:  # an error in a profiled step
            self._stop()

    def _stop(self) -> None:
        assert self._profiler is not None
        self._last, self._profiler = self._profiler, None
        self._last.__exit__(None, None, None)


class AutogradProfiler(TorchProfiler):
    """TorchProfiler under its old name: one chrome trace per profiled iteration.

    Args:
        enable_predicate: asked before every step.
        output_dir: gets `profiler-trace-iter{N}.json`.
        use_cuda: record the GPU too, when there is one.
    """

    def __init__(
        self,
        enable_predicate: Callable[[Any], bool],
        output_dir: str | Path,
        *,
        use_cuda: bool = True,
    ) -> None:
        super().__init__(
            enable_predicate,
            output_dir,
            activities=None if use_cuda else [ProfilerActivity.CPU],
            save_tensorboard=False,
        )


class TorchMemoryStats(HookBase):
    """Logs the CUDA allocator's figures every `period` iterations, at most `max_runs` times.

    Args:
        period: iterations.
        max_runs: how often at most.
    """

    def __init__(self, period: int = 20, max_runs: int = 10) -> None:
        if period < 1:
            raise ValueError(f"period must be >= 1, got {period}")
        self._period = period
        self._max_runs = max_runs
        self._runs = 0

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        is_due = done % self._period == 0 or done == self.trainer.max_iter
        if self._runs >= self._max_runs or not is_due or not torch.cuda.is_available():
            return
        self._runs += 1
        mib = 1024**2
        logger.info(
            "iter: %d  max reserved: %.0f MiB  reserved: %.0f MiB  max allocated: %.0f MiB  "
            "allocated: %.0f MiB",
            self.trainer.iter,
            torch.cuda.max_memory_reserved() / mib,
            torch.cuda.memory_reserved() / mib,
            torch.cuda.max_memory_allocated() / mib,
            torch.cuda.memory_allocated() / mib,
        )
        torch.cuda.reset_peak_memory_stats()
