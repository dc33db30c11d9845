"""IterTimerHook: how long iterations and their data take, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fasttrain.core.clock import DeviceClock
from fasttrain.hooks.hook import DATA_BATCH, Hook
from fasttrain.registry import HOOKS

if TYPE_CHECKING:
    from fasttrain.runner import Runner

_NAMES = {mode: (f"{mode}/data_time", f"{mode}/time") for mode in ("train", "val", "test")}


@HOOKS.register_module()
class IterTimerHook(Hook):
    """Puts `<mode>/data_time`, `<mode>/time` (seconds) and the note `eta` into the message hub.

    `time` runs from the end of one iteration to the end of the next. When a model on a GPU is
    trained it is the GPU's own time, by events that are read at the next log point; else the
    host's. Nothing waits for the device.

    Args:
        throughput: also put `<mode>/samples_per_s`, by the host's time.
    """

    priority = "NORMAL"

    def __init__(self, throughput: bool = False) -> None:
        self.throughput = throughput
        self.time_sec_tot: float = 0
        self.time_sec_test_val: float = 0
        self.start_iter = 0
        self._device_clock: DeviceClock | None = None

    def before_train(self, runner: Runner) -> None:
        """Count from the iteration that a resumed run starts at."""
        self.start_iter = runner.iter
        self._device_clock = DeviceClock() if _is_on_gpu(runner.model) else None

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        self.t = time.time()
        if self._device_clock is not None and mode == "train":
            self._device_clock.start()

    def _after_epoch(self, runner: Runner, mode: str = "train") -> None:
        self.time_sec_test_val = 0

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, mode: str = "train"
    ) -> None:
        runner.message_hub.update_scalar(_NAMES[mode][0], time.time() - self.t)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | Sequence | None = None,
        mode: str = "train",
    ) -> None:
        now = time.time()
        elapsed_s, self.t = now - self.t, now
        hub = runner.message_hub
        left: Any
        if mode == "train":
            if self._device_clock is None:
                hub.update_scalar("train/time", elapsed_s)
            else:
                hub.update_later("train/time", self._device_clock.lap())
            self.time_sec_tot += elapsed_s
            iteration = runner.iter
            mean_s = self.time_sec_tot / (iteration - self.start_iter + 1)
            left = runner.max_iters - iteration - 1
        else:
            hub.update_scalar(_NAMES[mode][1], elapsed_s)
            self.time_sec_test_val += elapsed_s
            mean_s = self.time_sec_test_val / (batch_idx + 1)
            loader = runner.val_dataloader if mode == "val" else runner.test_dataloader
            left = len(loader) - batch_idx - 1
        hub.update_info("eta", mean_s * left)
        if self.throughput:
            size = _batch_size(data_batch)
            if size is not None and elapsed_s > 0:
                hub.update_scalar(f"{mode}/samples_per_s", size / elapsed_s)


def _is_on_gpu(model: Any) -> bool:
    """Whether the model's first parameter is on a GPU."""
    parameter = next(iter(model.parameters()), None)
    return isinstance(parameter, Tensor) and parameter.is_cuda


def _batch_size(batch: Any) -> int | None:
    """The number of samples: the length of the first tensor or list; `None` when there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    if isinstance(batch, Mapping):
        sizes = (_batch_size(value) for value in batch.values())
    elif isinstance(batch, tuple):
        sizes = (_batch_size(value) for value in batch)
    else:
        return len(batch) if isinstance(batch, list) else None
    return next((size for size in sizes if size is not None), None)
