"""Hooks that end a run early, behind an iteration: hard, or by Ctrl-C."""

from __future__ import annotations

import os
import signal
from typing import Any

from fasttrain.hooks import Hook


class Stop(Exception):
    pass


class StopAt(Hook):
    """Ends the run hard after a number of iterations, behind the checkpoint; None: never."""

    priority = "LOWEST"

    def __init__(self, last: int | None) -> None:
        self.last = last

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter + 1 == self.last:
            self.end()

    def end(self) -> None:
        raise Stop


class CtrlCAt(StopAt):
    """Presses Ctrl-C during an iteration."""

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
