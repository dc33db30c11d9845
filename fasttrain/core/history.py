"""One series of scalars: appended in constant time, read through windows, float64 throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.core.pending import PendingQueue
from fasttrain.core.ring import make_ring, read_scalar


class Series:
    """A bounded history of (value, count) pairs.

    A value may stand for the sum over `count` samples: the mean of a window is the sum of its
    values over the sum of its counts. Reading finishes what still waits for a device (sync point).

    The ring is on the host, for a GPU's scalars too: statistics are read there anyway, a flush is
    a few KB, and a ring on the device would take up to 16 MB of its memory per series.

    Args:
        max_length: the number of pairs kept; the oldest are dropped.
        queue: where device scalars wait, shared by the series of a store.
        name: used in messages about the series.
    """

    __slots__ = ("__weakref__", "name", "queue", "ring")

    def __init__(
        self, max_length: int = 1_000_000, *, queue: PendingQueue | None = None, name: str = ""
    ) -> None:
        self.ring = make_ring(max_length)
        self.queue = queue or PendingQueue()
        self.name = name

    def append(self, value: Any, count: Any = 1.0, step: int = 0) -> None:
        """Put one number at the end; a tensor on a device stays there until the next flush.

        Raises:
            TypeError: `value` or `count` is no number.
            ValueError: `value` has not exactly one element.
        """
        queue = self.queue
        weight = read_scalar(count)
        if isinstance(value, Tensor) and queue.reader.defers(value):
            queue.put_tensors([self], [value], [weight], step)
        elif queue.busy:
            queue.put_host(self, read_scalar(value), weight, step)
        else:
            queue.write(self, read_scalar(value), weight, step)

    def extend(self, values: Iterable[float], counts: Iterable[float] | None = None) -> None:
        """Put many numbers at the end; without `counts` each counts once.

        Raises:
            ValueError: the lengths differ or an array has more than one dimension.
        """
        numbers = _vector("values", values)
        weights = np.ones(len(numbers)) if counts is None else _vector("counts", counts)
        if len(numbers) != len(weights):
            raise ValueError(
                f"expected as many counts as values, got {len(weights)} and {len(numbers)}"
            )
        self.flush()
        self.ring.integral = self.ring.integral and not len(numbers)
        self.ring.extend(numbers, weights)

    @property
    def total(self) -> int:
        """Numbers ever put in, dropped ones included."""
        self.flush()
        return self.ring.total

    @property
    def max_length(self) -> int:
        """The number of pairs kept."""
        return self.ring.max_length

    def __len__(self) -> int:
        self.flush()
        return len(self.ring)

    def flush(self) -> None:
        """Fetch what waits on a device, if that takes no other process (sync point)."""
        if self.queue.busy:
            self.queue.settle()

    def window(self, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the last `size` values and counts, oldest first; all of them for `None`."""
        self.flush()
        wanted = len(self.ring) if size is None else size
        values, counts = self.ring.window(wanted)
        return np.frombuffer(values), np.frombuffer(counts)

    def values(self) -> np.ndarray:
        """A copy of all values kept, oldest first."""
        return self.window()[0]

    def counts(self) -> np.ndarray:
        """A copy of all counts kept, oldest first."""
        return self.window()[1]

    def current(self) -> float:
        """The newest value.

        Raises:
            ValueError: the series is empty.
        """
        self.flush()
        return self.ring.last()

    def mean(self, window: int | None = None) -> float:
        """Sum of the last values over the sum of their counts; NaN when there are none."""
        self.flush()
        value_sum, count_sum = self.ring.sums(len(self.ring) if window is None else window)
        if count_sum:
            return value_sum / count_sum
        return math.copysign(math.inf, value_sum) if value_sum else math.nan

    def global_mean(self) -> float:
        """The mean of all that is kept."""
        return self.mean()

    def min(self, window: int | None = None) -> float:
        """The smallest of the last values."""
        return self._reduce(np.min, window)

    def max(self, window: int | None = None) -> float:
        """The largest of the last values."""
        return self._reduce(np.max, window)

    def median(self, window: int | None = None) -> float:
        """The median of the last values; NaN when one of them is."""
        self.flush()
        return self.ring.median(len(self.ring) if window is None else window)

    def recent(self, span: float) -> tuple[float, float, float, int]:
        """Of the last values whose counts lie above the newest count less `span`.

        Returns:
            the newest value and its count, the median, and how many they are.
        Raises:
            ValueError: the series is empty.
        """
        self.flush()
        return self.ring.recent(span)

    def _reduce(self, function: Callable[[np.ndarray], Any], window: int | None) -> float:
        values, _ = self.window(window)
        if not len(values):
            raise ValueError("the series is empty")
        return float(function(values))

    def state_dict(self, limit: int | None = None) -> dict[str, Any]:
        """The last `limit` pairs (all for `None`) as tensors, with what is needed to go on."""
        values, counts = self.window(limit)
        return {
            "values": torch.from_numpy(values),
            "counts": torch.from_numpy(counts),
            "total": self.ring.total,
            "max_length": self.max_length,
            "integral": self.ring.integral,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Replace the contents by those of `state_dict`; `max_length` becomes the saved one.

        Raises:
            KeyError: values or counts are missing.
            ValueError: their lengths differ.
        """
        for key in ("values", "counts"):
            if key not in state_dict:
                raise KeyError(f"a saved series must have {key!r}, got {sorted(state_dict)}")
        self.flush()
        values = _vector("values", state_dict["values"])
        counts = _vector("counts", state_dict["counts"])
        if len(values) != len(counts):
            raise ValueError(
                f"expected as many counts as values, got {len(counts)} and {len(values)}"
            )
        self.ring.reset(state_dict.get("max_length", self.max_length))
        self.ring.extend(values, counts)
        self.ring.total = state_dict.get("total", len(values))
        self.ring.integral = state_dict.get("integral", not len(values))


def _vector(name: str, numbers: Any) -> np.ndarray:
    """A contiguous float64 vector of `numbers`."""
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().cpu().numpy()  # sync point on a device
    vector = np.ascontiguousarray(numbers, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got the shape {vector.shape}")
    return vector
