"""IterTimerHook: how long iterations and their data take, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fasttrain.hooks.hook import DATA_BATCH, Hook
from fasttrain.registry import HOOKS

if TYPE_CHECKING:
    from fasttrain.runner import Runner


_NAMES = {mode: (f"{mode}/data_time", f"{mode}/time") for mode in ("train", "val", "test")}


@HOOKS.register_module()
class IterTimerHook(Hook):
    """Puts `<mode>/data_time`, `<mode>/time` (seconds) and the note `eta` into the message hub.

    `time` runs from the end of one iteration to the end of the next, on the host's clock: nothing
    waits for the device, whose work catches up within a log window.
    """

    priority = "NORMAL"

    def __init__(self) -> None:
        self.time_sec_tot: float = 0
        self.time_sec_test_val: float = 0
        self.start_iter = 0

    def before_train(self, runner: Runner) -> None:
        """Count from the iteration that a resumed run starts at."""
        self.start_iter = runner.iter

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        self.t = time.time()

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
        hub.update_scalar(_NAMES[mode][1], elapsed_s)
        left: Any
        if mode == "train":
            self.time_sec_tot += elapsed_s
            iteration = runner.iter
            mean_s = self.time_sec_tot / (iteration - self.start_iter + 1)
            left = runner.max_iters - iteration - 1
        else:
            self.time_sec_test_val += elapsed_s
            mean_s = self.time_sec_test_val / (batch_idx + 1)
            loader = runner.val_dataloader if mode == "val" else runner.test_dataloader
            left = len(loader) - batch_idx - 1
        hub.update_info("eta", mean_s * left)
