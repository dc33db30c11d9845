"""ProfilerHook: torch.profiler over the first epochs or iterations of a training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity

from fasttrain.registry import HOOKS

from .hook import DATA_BATCH, Hook

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class ProfilerHook(Hook):
    """Profiles the first `profile_times` epochs or iterations.

    Args:
        by_epoch: whether `profile_times` counts epochs.
        profile_times: how long to profile.
        activity_with_cpu: profile the CPU.
        activity_with_cuda: profile CUDA.
        schedule: arguments of `torch.profiler.schedule`.
        on_trace_ready: a callable, `dict(type='log_trace', ...)` to print a table, or
            `dict(type='tb_trace', dir_name=...)` to write TensorBoard's trace.
        record_shapes, profile_memory, with_stack, with_flops: as in `torch.profiler.profile`.
        json_trace_path: file to write a Chrome trace to.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        *,
        by_epoch: bool = True,
        profile_times: int = 1,
        activity_with_cpu: bool = True,
        activity_with_cuda: bool = False,
        schedule: dict[str, Any] | None = None,
        on_trace_ready: Callable | dict[str, Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        json_trace_path: str | None = None,
    ) -> None:
        assert isinstance(by_epoch, bool), "``by_epoch`` should be a boolean."
        assert isinstance(activity_with_cpu, bool), "``activity_with_cpu`` should be a boolean."
        assert isinstance(activity_with_cuda, bool), "``activity_with_cuda`` should be a boolean."
        if profile_times < 1:
            raise ValueError(f"profile_iters should be greater than 0, but got {profile_times}")
        if by_epoch and profile_times > 1:
            raise ValueError(
                f"Profiler will profile 0-{profile_times} epochs.\n"
                "A profiler slows the training down and keeps every event in memory: profile 1 "
                "epoch, or use by_epoch=False with a number of iterations."
            )
        self.by_epoch = by_epoch
        self.profile_times = profile_times
        self.activities: list[ProfilerActivity] = []
        if activity_with_cpu:
            self.activities.append(ProfilerActivity.CPU)
        if activity_with_cuda:
            self.activities.append(ProfilerActivity.CUDA)
        if schedule is not None:
            assert isinstance(schedule, dict), "``schedule`` should be a dict."
            self.schedule: Callable | None = torch.profiler.schedule(**schedule)
        else:
            self.schedule = None
        self.on_trace_ready = on_trace_ready
        self.record_shapes = record_shapes
        self.profile_memory = profile_memory
        self.with_stack = with_stack
        self.with_flops = with_flops
        self.json_trace_path = json_trace_path
        self._closed = False

    def before_run(self, runner: Runner) -> None:
        """Start the profiler."""
        limit = runner.max_epochs if self.by_epoch else runner.max_iters
        if limit < self.profile_times:
            raise ValueError(f"``profile_times`` should not be greater than {limit}")
        handler = self._parse_trace_config(runner)
        self.profiler = torch.profiler.profile(
            activities=self.activities,
            schedule=self.schedule,
            on_trace_ready=handler,
            record_shapes=self.record_shapes,
            profile_memory=self.profile_memory,
            with_stack=self.with_stack,
            with_flops=self.with_flops,
        )
        self.profiler.__enter__()
        runner.logger.info("profiler is profiling...")

    def after_train_epoch(self, runner: Runner) -> None:
        if not self._closed and self.by_epoch and runner.epoch == self.profile_times - 1:
            self._export_chrome_trace(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | Sequence | None = None,
    ) -> None:
        if self._closed:
            return
        self.profiler.step()
        if not self.by_epoch and runner.iter == self.profile_times - 1:
            self._export_chrome_trace(runner)

    def _export_chrome_trace(self, runner: Runner) -> None:
        """Stop the profiler and write the Chrome trace if one was asked for."""
        self._closed = True
        runner.logger.info("profiler may take a few minutes...")
        self.profiler.__exit__(None, None, None)
        if self.json_trace_path is not None:
            self.profiler.export_chrome_trace(self.json_trace_path)

    def _parse_trace_config(self, runner: Runner) -> Callable | None:
        """The trace handler that `on_trace_ready` describes."""
        given = self.on_trace_ready
        if given is None or callable(given):
            return given
        if not isinstance(given, dict):
            raise ValueError(
                f"``on_trace_ready`` should be a handler, or dict, or None, but got {given}"
            )
        options = dict(given)
        kind = options.pop("type")
        if kind == "log_trace":
            return lambda profiler: print(profiler.key_averages().table(**options))
        if kind == "tb_trace":
            return self._tensorboard_handler(runner, options)
        raise ValueError(f'trace_type should be "log_trace" or "tb_trace", but got {kind}')

    def _tensorboard_handler(self, runner: Runner, options: dict[str, Any]) -> Callable:
        try:
            import torch_tb_profiler  # noqa: F401
        except ImportError as e:
            raise ImportError("please run ``pip install torch-tb-profiler``") from e
        folder = options.pop("dir_name", "tf_tracing_logs")
        if not os.path.isabs(folder):
            folder = os.path.join(runner.log_dir, folder)
        return torch.profiler.tensorboard_trace_handler(folder, **options)


@HOOKS.register_module()
class NPUProfilerHook(Hook):
    """Stands for the Ascend profiler, which is not supported: creating it says so."""

    priority = "VERY_LOW"

    def __init__(
        self,
        *,
        begin: int = 0,
        end: int = 1,
        result_path: str = "cann_profiling",
        exit_after_profiling: bool = True,
        use_e2e_profiler: bool = False,
        ge_profiling_to_std_out: bool = False,
    ) -> None:
        raise ImportError(
            "Failed to import torch_npu module: NPUProfilerHook needs an Ascend NPU, which is not "
            "supported here; use ProfilerHook on a CPU or a CUDA device"
        )
