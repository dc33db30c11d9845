"""How long a device takes between two points, noted without waiting for it."""

from __future__ import annotations

from typing import Any

import torch


class Lap:
    """The seconds between two events of a device; they are known once it has passed the second."""

    __slots__ = ("_end", "_start")

    def __init__(self, start: Any, end: Any) -> None:
        self._start, self._end = start, end

    def ready(self) -> bool:
        """Whether the device has passed the end."""
        return bool(self._end.query())

    def resolve(self) -> float:
        """The seconds (sync point if the device has not passed the end)."""
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1e3


class DeviceClock:
    """The time of a GPU's current stream, by events."""

    def start(self) -> None:
        """Begin the first lap."""
        self._last = self._mark()

    def lap(self) -> Lap:
        """The lap since the last one, to be resolved later; begins the next."""
        now = self._mark()
        lap, self._last = Lap(self._last, now), now
        return lap

    def _mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()  # type: ignore[no-untyped-call]
        return event
