"""Scalars that still sit on a device, kept in order and fetched in one asynchronous copy."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fasttrain.core.gather import Gatherer, Row, stack
from fasttrain.core.ring import require_scalar
from fasttrain.core.transfer import AveragingReader, HostTransfer, TorchReader, Transfer
from fasttrain.core.transfer import Reader as Reader

if TYPE_CHECKING:
    from fasttrain.core.history import Series

# After so many scalars without a flush one is begun, so that a run that never reads does not grow.
MAX_WAITING = 8192


class Later(Protocol):
    """A number that the device will know, for example the time between two of its events."""

    def ready(self) -> bool: ...
    def resolve(self) -> float: ...


class _Vector:
    """Scalars that one call put in: several series' values in one row."""

    __slots__ = ("counts", "row", "series", "step")

    def __init__(self, series: list[Series], row: Row, counts: list[float], step: int) -> None:
        self.series, self.row, self.counts, self.step = series, row, counts, step


class _Host:
    """One number that waits its turn behind device scalars."""

    __slots__ = ("count", "series", "step", "value")

    def __init__(self, series: Series, value: float | Later, count: float, step: int) -> None:
        self.series, self.value, self.count, self.step = series, value, count, step


class PendingFlush:
    """A flush under way; `finish` brings the values into their series, in the order of the puts."""

    def __init__(
        self,
        queue: PendingQueue,
        entries: list[_Vector | _Host],
        transfer: Transfer,
        on_done: Callable[[], None] | None,
    ) -> None:
        self._queue = queue
        self._entries = entries
        self._laters = [
            entry.value
            for entry in entries
            if isinstance(entry, _Host) and not isinstance(entry.value, float | int)
        ]
        self._transfer = transfer
        self._whole = not queue.collective  # a mean over processes is no integer
        self._on_done = on_done
        self.done = False

    def ready(self) -> bool:
        """Whether `finish` would return without waiting for the device."""
        return self.done or (
            self._transfer.ready() and all(later.ready() for later in self._laters)
        )

    def finish(self) -> None:
        """Wait for the copy and write it, after all flushes begun earlier (sync point)."""
        self._queue.finish_up_to(self)

    def write(self) -> None:
        """Write the values; then tell who wanted to know. Only the queue calls this."""
        values = self._transfer.values()
        entries, self._entries = self._entries, []
        start = 0
        for entry in entries:
            if isinstance(entry, _Vector):
                stop = start + len(entry.series)
                numbers = values[start:stop].tolist()
                if self._whole and any(entry.row.whole):
                    numbers = [
                        int(number) if whole else number
                        for number, whole in zip(numbers, entry.row.whole, strict=True)
                    ]
                start = stop
                for series, number, count in zip(entry.series, numbers, entry.counts, strict=True):
                    self._queue.write(series, number, count, entry.step)
            else:
                value = entry.value
                number = value if isinstance(value, float | int) else value.resolve()
                self._queue.write(entry.series, number, entry.count, entry.step)
        self.done = True
        if self._on_done is not None:
            self._on_done()


class PendingQueue:
    """First in, first out: once one scalar waits for a device, all later ones queue behind it.

    So the series always show one moment of the run, never a mix.

    Args:
        reader: what counts as "on a device" and how it is fetched.
        on_nonfinite: called with the series and the step of every infinite or NaN number.
    """

    def __init__(
        self,
        reader: Reader | None = None,
        on_nonfinite: Callable[[Series, int], None] | None = None,
    ) -> None:
        self.use(reader or TorchReader())
        self.lock = threading.RLock()
        self.busy = False  # something waits or is under way
        self._on_nonfinite = on_nonfinite
        self._waiting: list[_Vector | _Host] = []
        self._num_waiting = 0
        self._flights: deque[PendingFlush] = deque()
        self._gatherer = Gatherer()
        self._telling = False

    def use(self, reader: Reader) -> None:
        """Fetch by `reader` from now on; nothing may wait."""
        self.reader = reader
        # Fetching takes all processes then, so that reading alone must not begin it.
        self.collective = isinstance(reader, AveragingReader)

    def put_host(self, series: Series, value: float | Later, count: float, step: int) -> None:
        """Queue one number behind what waits."""
        with self.lock:
            self._push(_Host(series, value, count, step), 1)

    def put_tensors(
        self, series: list[Series], tensors: list[Tensor], counts: list[float], step: int
    ) -> None:
        """Queue tensors of one element each; their values are those of now, whatever comes later.

        Raises:
            ValueError: a tensor has not exactly one element.
            TypeError: a tensor is complex.
        """
        with self.lock:
            row = self._gatherer.take(tensors)
            if row is not None:
                self.put_row(series, row, counts, step)
                return
            for members in _split(tensors):
                alike = [tensors[index].reshape(()) for index in members]
                row = self._gatherer.take(alike) or stack(alike)
                assert row is not None  # scalars of one device and type
                self.put_row(
                    [series[index] for index in members],
                    row,
                    [counts[index] for index in members],
                    step,
                )

    def take(self, tensors: list[Tensor]) -> Row | None:
        """A row for `put_row`, to be put before the lock is given back; see `Gatherer.take`."""
        return self._gatherer.take(tensors)

    def put_row(self, series: list[Series], row: Row, counts: list[float], step: int) -> None:
        """Queue one number for each series."""
        with self.lock:
            self._push(_Vector(series, row, counts, step), len(series))

    def _push(self, entry: _Vector | _Host, size: int) -> None:
        self._waiting.append(entry)
        self.busy = True
        self._num_waiting += size
        if self._num_waiting >= MAX_WAITING:
            self.finish_up_to(self._flights[-1] if self._flights else None)
            self.begin()

    def begin(self, on_done: Callable[[], None] | None = None) -> PendingFlush:
        """Start fetching all that waits; without anything to fetch the flush is done at once."""
        with self.lock:
            entries, self._waiting, self._num_waiting = self._waiting, [], 0
            vectors = self._gatherer.hand_over(
                (entry.row, len(entry.series)) for entry in entries if isinstance(entry, _Vector)
            )
            transfer = self.reader.begin(vectors) if vectors else HostTransfer([])
            flush = PendingFlush(self, entries, transfer, on_done)
            self._flights.append(flush)
            self.busy = True
            if len(self._flights) == 1 and not vectors and flush.ready():
                flush.finish()
            return flush

    def finish_up_to(self, last: PendingFlush | None) -> None:
        """Finish all flushes begun so far, or those up to `last`, in their order."""
        with self.lock:
            if self._telling:  # a reader that was told of a finished flush sees that moment
                return
            while self._flights and not (last is not None and last.done):
                flush = self._flights.popleft()
                self._telling = True
                try:
                    flush.write()
                finally:
                    self._telling = False
                    self.busy = bool(self._waiting or self._flights)

    def flush(self) -> None:
        """Bring everything into the series (sync point when a device scalar waits)."""
        if self.busy:
            with self.lock:  # the thread that has it and is telling sees the moment that it tells
                if self._waiting and not self._telling:
                    self.begin()
                self.finish_up_to(None)

    def settle(self) -> None:
        """What reading does: a flush, unless that takes other processes; then only its end."""
        if self.collective:
            self.finish_up_to(None)
        else:
            self.flush()

    def write(self, series: Series, value: float, count: float, step: int) -> None:
        """Append to the ring, past the queue; note a number that is not finite."""
        series.ring.append(value, count)
        if self._on_nonfinite is not None and not math.isfinite(value):
            self._on_nonfinite(series, step)


def _split(tensors: list[Tensor]) -> list[list[int]]:
    """The indices of tensors by device and type.

    Raises:
        ValueError: a tensor has not exactly one element.
        TypeError: a tensor is complex.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        require_scalar(tensor)
        groups.setdefault((tensor.device, tensor.dtype), []).append(index)
    return list(groups.values())
