"""What writers do with an EventStorage: lines on the console, JSON lines, TensorBoard events."""

from __future__ import annotations

import datetime
import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fasttrain.engine.events import EventStorage, HistoryBuffer, get_event_storage


class EventWriter:
    """Base class: `write` takes what is new from the current storage, `close` lets go."""

    def write(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no write(); override it")

    def close(self) -> None:
        """Nothing to close by default."""


class JSONWriter(EventWriter):
    """One JSON object per iteration that has news, appended to a file.

    Each write hands its lines to the operating system, so that they outlive this process, whatever
    ends it, and readers see them at once. Only a machine that goes down could still lose them; for
    that the file is synchronised to the disk, which takes milliseconds (tens of them on a busy
    one), at most once per `sync_interval_s` and when it is closed, not at each write: a metrics log
    is no checkpoint, and its newest seconds are worth less than a stop of the training at every
    write.

    The file is opened at the first write.

    Args:
        json_file: path of the file.
        window_size: iterations of the median of scalars that want smoothing.
        sync_interval_s: seconds between two synchronisations.
    """

    def __init__(
        self, json_file: str | Path, window_size: int = 20, *, sync_interval_s: float = 5.0
    ) -> None:
        self._path = Path(json_file)
        self._open_file: Any = None
        self._window_size = window_size
        self._last_write = -1
        self._sync_interval_s = sync_interval_s
        self._last_sync = time.monotonic()
        self._encode = json.JSONEncoder(sort_keys=True).encode

    @property
    def _file_handle(self) -> Any:
        if self._open_file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open_file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        return self._open_file

    def write(self) -> None:
        by_iteration: dict[int, dict[str, float]] = {}
        for name, value, iteration in _news(self._window_size, self._last_write):
            by_iteration.setdefault(iteration, {"iteration": iteration})[name] = value
        if not by_iteration:
            return
        lines = [self._encode(by_iteration[i]) for i in sorted(by_iteration)]
        self._file_handle.write("\n".join(lines) + "\n")
        self._file_handle.flush()
        self._last_write = max(by_iteration)
        if time.monotonic() - self._last_sync >= self._sync_interval_s:
            self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._open_file.fileno())
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # a pipe or terminal cannot be synced
                raise
        self._last_sync = time.monotonic()

    def close(self) -> None:
        """Synchronise and close; a further write opens the file again."""
        if self._open_file is None:
            return
        try:
            self._sync()
        finally:
            self._open_file.close()
            self._open_file = None


def _news(window_size: int, last_write: int) -> Iterator[tuple[str, float, int]]:
    """(name, smoothed value, iteration) of what the current storage got after `last_write`."""
    latest = get_event_storage().latest_with_smoothing_hint(window_size)
    for name, (value, iteration) in latest.items():
        if iteration > last_write:
            yield name, value, iteration


class TensorboardXWriter(EventWriter):
    """Scalars, images and histograms as TensorBoard events, by `torch.utils.tensorboard`.

    Args:
        log_dir: folder of the event file, which is made at the first write.
        window_size: iterations of the median of scalars that want smoothing.
        kwargs: passed on to `SummaryWriter`.
    """

    def __init__(self, log_dir: str | Path, window_size: int = 20, **kwargs: Any) -> None:
        self._window_size = window_size
        self._arguments = {"log_dir": str(log_dir), **kwargs}
        self._open_writer: Any = None
        self._last_write = -1

    @property
    def _writer(self) -> Any:
        if self._open_writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as e:
                raise ImportError(
                    "TensorboardXWriter needs the package tensorboard: pip install tensorboard"
                ) from e
            self._open_writer = SummaryWriter(**self._arguments)
        return self._open_writer

    def write(self) -> None:
        storage = get_event_storage()
        newest = self._last_write
        for name, value, iteration in _news(self._window_size, self._last_write):
            self._writer.add_scalar(name, value, iteration)
            newest = max(newest, iteration)
        self._last_write = newest
        for name, image, step in storage._vis_data:
            self._writer.add_image(name, image, step)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        if self._open_writer is not None:
            self._open_writer.close()
            self._open_writer = None


class CommonMetricPrinter(EventWriter):
    """One line per write: ETA, iteration, losses, times, learning rate, peak memory.

    Losses and rewards are known by their names, in any case; a name that holds `[metric]` is shown
    behind them.

    Args:
        max_iter: the last iteration, for the ETA; no ETA when None.
        window_size: values of the medians and means shown.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        self.logger = logging.getLogger("fasttrain.utils.events")
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None
        self._num_looked_at = 0
        self._losses: list[str] = []
        self._metrics: list[str] = []

    def _eta(self, storage: EventStorage) -> str | None:
        if self._max_iter is None:
            return None
        left = self._max_iter - storage.iter - 1
        try:
            seconds = storage.history("time").median(1000) * left
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        except KeyError:  # no timer: take the time between two writes
            now, before = (storage.iter, time.perf_counter()), self._last_write
            self._last_write = now
            if before is None or now[0] == before[0]:
                return None
            seconds = (now[1] - before[1]) / (now[0] - before[0]) * left
        return str(datetime.timedelta(seconds=int(seconds)))

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return
        self.logger.info(self.line(storage))

    def line(self, storage: EventStorage) -> str:
        """The line that `write` logs."""
        histories = storage.histories()

        def shown(name: str, form: str, read: Callable[[HistoryBuffer], float]) -> str | None:
            history = histories.get(name)
            return f"{name}: {read(history):{form}}" if history else None

        self._look_at(histories)
        smoothed = "  ".join(
            f"{name}: {histories[name].median(self._window_size):.4g}"
            for name in (*self._losses, *self._metrics)
            if histories[name]
        )
        eta = self._eta(storage)
        memory = None
        if torch.cuda.is_initialized():
            memory = f"max_mem: {torch.cuda.max_memory_allocated() / 1024**2:.0f}M"
        parts = [
            f"eta: {eta}" if eta else None,
            f"iter: {storage.iter}",
            smoothed,
            shown("time", ".4f", HistoryBuffer.global_avg),
            shown("data_time", ".4f", lambda history: history.avg(self._window_size)),
            shown("lr", ".5g", HistoryBuffer.latest) or "lr: N/A",
            memory,
        ]
        return " " + "  ".join(part for part in parts if part)

    def _look_at(self, histories: Mapping[str, HistoryBuffer]) -> None:
        """Choose the names to show; only when there are new ones."""
        if len(histories) == self._num_looked_at:
            return
        words = ("loss", "cider", "rewardcriterion")
        self._num_looked_at = len(histories)
        self._metrics = [name for name in histories if "[metric]" in name]
        self._losses = [
            name
            for name in histories
            if name not in self._metrics and any(word in name.lower() for word in words)
        ]
