"""A live progress bar on a terminal, as a hook that reads the device at log points only."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fasttrain.hooks import Hook, LoggerHook

REDRAW_INTERVAL_S = 0.1
# Weight of the newest interval in the smoothed rate.
SMOOTHING = 0.3


def wants_live_display() -> bool:
    """Whether standard error is a terminal that can redraw a line."""
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


class LiveHook(Hook):
    """Shows stage, progress, rate, ETA and loss; also knows whether a first batch has come.

    Args:
        display: False draws nothing and only keeps `started`.
    """

    def __init__(self, display: bool) -> None:
        self.started = False
        self._bar = _Bar() if display else None
        self._log_interval = 0
        self._due_s = 0.0

    def close(self) -> None:
        """Take the bar off the screen and give the log its stream back."""
        if self._bar is not None:
            self._bar.stop()

    def before_train(self, runner: Any) -> None:
        """Start the bar; it follows the log interval of the logger hook."""
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._log_interval = intervals[0] if intervals else 0
        if self._bar is not None:
            self._bar.start(runner.logger)
            self._bar.begin("train", runner.iter, runner.max_iters)

    def after_train(self, runner: Any) -> None:
        """Stop the bar."""
        self.close()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note that a batch has come."""
        self.started = True

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the bar when a redraw is due; read the loss where the logger has just read it."""
        if self._bar is None:
            return
        done = runner.iter + 1
        if self._log_interval and done % self._log_interval == 0:
            self._bar.loss = _last_loss(runner)
        now_s = time.perf_counter()
        if now_s >= self._due_s:
            self._due_s = now_s + REDRAW_INTERVAL_S
            self._bar.advance(done, _epoch_text(runner))

    def before_val(self, runner: Any) -> None:
        """Show the validation in the bar's place."""
        self._begin_evaluation(runner, "val", runner.val_dataloader)

    def before_test(self, runner: Any) -> None:
        """Start the bar of a test."""
        self._begin_evaluation(runner, "test", runner.test_dataloader)

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note that a batch has come."""
        self.started = True

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note that a batch has come."""
        self.started = True

    def after_val_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Advance the validation's bar."""
        self._advance_evaluation(batch_idx)

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Advance the test's bar."""
        self._advance_evaluation(batch_idx)

    def after_val(self, runner: Any) -> None:
        """Go back to the training's bar."""
        if self._bar is not None:
            self._bar.end_inner()

    def after_test(self, runner: Any) -> None:
        """Stop the bar."""
        self.close()

    def _begin_evaluation(self, runner: Any, stage: str, dataloader: Any) -> None:
        if self._bar is not None:
            self._bar.start(runner.logger)
            self._bar.begin(stage, 0, len(dataloader))

    def _advance_evaluation(self, batch_idx: int) -> None:
        if self._bar is not None:
            self._bar.advance(batch_idx + 1, "")


def _last_loss(runner: Any) -> str:
    if "train/loss" not in runner.message_hub.log_scalars:
        return ""
    value = runner.message_hub.get_scalar("train/loss").current()
    return f"loss {float(value):.4g}"  # sync point: the logger has read it just now


def _epoch_text(runner: Any) -> str:
    by_epoch = getattr(runner.train_loop, "_max_epochs", None)
    return f"epoch {runner.epoch + 1}/{runner.max_epochs}" if by_epoch else ""


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds as a clock shows them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class _Bar:
    """The rich display: the training's bar and, below it, that of an evaluation."""

    def __init__(self) -> None:
        self.loss = ""
        self._progress: Progress | None = None
        self._tasks: list[TaskID] = []
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._rate: float | None = None
        self._mark = (0, 0.0)

    def start(self, logger: logging.Logger) -> None:
        """Open the display and let log lines pass above the bar."""
        if self._progress is not None:
            return
        outputs = (sys.stdout, sys.stderr)
        self._progress = Progress(
            TextColumn("{task.description:>5}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in outputs:
                self._streams.append((handler, handler.setStream(sys.stderr)))

    def stop(self) -> None:
        """Close the display; may be called again."""
        if self._progress is None:
            return
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()
        self._tasks.clear()
        self._progress.stop()
        self._progress = None

    def begin(self, stage: str, done: int, total: int) -> None:
        """Add a bar for a stage that stands at `done` of `total` iterations."""
        assert self._progress is not None
        self._tasks.append(self._progress.add_task(stage, completed=done, total=total, text=""))
        self._rate = None
        self._mark = (done, time.perf_counter())

    def end_inner(self) -> None:
        """Remove the bar of an evaluation that ran inside training."""
        if self._progress is not None and len(self._tasks) > 1:
            self._progress.remove_task(self._tasks.pop())
            self._mark = (0, 0.0)

    def advance(self, done: int, prefix: str) -> None:
        """Show that `done` iterations of the innermost stage are over."""
        if self._progress is None:
            return
        task = self._progress.tasks[-1]
        text = [prefix, self._rate_text(done, int(task.total or 0)), self.loss]
        self._progress.update(
            self._tasks[-1], completed=done, text="  ".join(part for part in text if part)
        )

    def _rate_text(self, done: int, total: int) -> str:
        now_s = time.perf_counter()
        last_done, last_s = self._mark
        self._mark = (done, now_s)
        if 0 < last_done < done:
            newest = (done - last_done) / max(now_s - last_s, 1e-9)
            kept = 1.0 - SMOOTHING
            self._rate = newest if self._rate is None else kept * self._rate + SMOOTHING * newest
        if self._rate is None:
            return ""
        eta = format_duration((total - done) / self._rate)
        return f"{self._rate:.1f} it/s  eta {eta}"
