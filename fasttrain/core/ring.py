"""Bounded ring of (value, count) pairs: the compiled one when it is there, else one of arrays."""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from fasttrain import native

# Beyond it a float64 skips integers.
MAX_WHOLE = 2**53


class Ring(Protocol):
    """What a series stores its numbers in."""

    total: int  # pairs ever put in, dropped ones included
    integral: bool  # only integers of at most 2**53 were put in so far

    @property
    def max_length(self) -> int: ...
    def __len__(self) -> int: ...
    def append(self, value: float, count: float = 1.0, /) -> None: ...
    def extend(self, values: Any, counts: Any, /) -> None: ...
    def reset(self, max_length: int, /) -> None: ...
    def window(self, size: int, /) -> tuple[Any, Any]: ...
    def sums(self, size: int, /) -> tuple[float, float]: ...
    def last(self) -> float: ...
    def median(self, size: int, /) -> float: ...
    def recent(self, span: float, /) -> tuple[float, float, float, int]: ...


def _number(name: str, value: Any) -> float:
    if isinstance(value, float | int):
        return float(value)
    raise TypeError(f"{name} must be a Python int or float, got {type(value)}")


class ArrayRing:
    """The ring in plain Python, for a tree without the compiled module.

    As the compiled one, several threads may use it at once.
    """

    def __init__(self, max_length: int = 1_000_000) -> None:
        self._lock = threading.RLock()
        self.reset(max_length)

    def __len__(self) -> int:
        return len(self._values)

    def reset(self, max_length: int, /) -> None:
        """Forget everything, and keep at most `max_length` pairs from now on."""
        if max_length < 1:
            raise ValueError(f"max_length must be >= 1, got {max_length}")
        self.max_length = max_length
        self.integral = True
        self._values = array("d")
        self._counts = array("d")
        self._head = 0  # index of the oldest pair once the ring is full
        self.total = 0

    def append(self, value: float, count: float = 1.0, /) -> None:
        """Put a pair at the end; the oldest falls out when the ring is full."""
        number, weight = _number("value", value), _number("count", count)
        with self._lock:
            if self.integral and (isinstance(value, float) or abs(value) > MAX_WHOLE):
                self.integral = False
            if len(self._values) < self.max_length:
                self._values.append(number)
                self._counts.append(weight)
            else:
                self._values[self._head] = number
                self._counts[self._head] = weight
                self._head = (self._head + 1) % self.max_length
            self.total += 1

    def extend(self, values: Any, counts: Any, /) -> None:
        """Put float64 vectors at the end."""
        for given in (values, counts):
            if memoryview(given).ndim != 1 or memoryview(given).format != "d":
                raise TypeError("expected a one-dimensional float64 array")
        if len(values) != len(counts):
            raise ValueError(
                f"expected as many counts as values, got {len(counts)} and {len(values)}"
            )
        with self._lock:
            total, size = self.total + len(values), len(self)
            for name, added in (("_values", values), ("_counts", counts)):
                kept = array("d", self._last(getattr(self, name), size))
                kept.frombytes(bytes(memoryview(added[-self.max_length :])))
                setattr(self, name, kept[-self.max_length :])
            self._head, self.total = 0, total

    def _last(self, stored: array[float], size: int) -> bytearray:
        joined = stored[self._head :] + stored[: self._head]
        return bytearray(joined[len(joined) - size :].tobytes())

    def window(self, size: int, /) -> tuple[bytearray, bytearray]:
        """The bytes of the last values and counts, float64, oldest first."""
        if size < 0:
            raise ValueError(f"size must be >= 0, got {size}")
        with self._lock:
            size = min(size, len(self))
            return self._last(self._values, size), self._last(self._counts, size)

    def sums(self, size: int, /) -> tuple[float, float]:
        """Sums of the last values and of their counts, pairwise."""
        values, counts = (np.frombuffer(part) for part in self.window(size))
        return float(values.sum()), float(counts.sum())

    def last(self) -> float:
        """The newest value."""
        with self._lock:
            if not self._values:
                raise ValueError("the series is empty")
            return self._values[self._head - 1]

    def median(self, size: int, /) -> float:
        """The median of the last values; NaN when one of them is."""
        last = self.last()
        values = np.frombuffer(self.window(size)[0])
        if not len(values):
            raise ValueError("the window is empty")
        return last if len(values) == 1 else float(np.median(values))

    def recent(self, span: float, /) -> tuple[float, float, float, int]:
        """Of the last values whose counts lie above the newest count less `span`.

        Returns:
            the newest value and its count, the median, and how many they are.
        """
        with self._lock:
            last, size, n = self.last(), len(self), 1
            newest = self._counts[self._head - 1]
            while n < size and self._counts[self._head - 1 - n] > newest - span:
                n += 1
            return last, newest, self.median(n), n


def _put_scalars(
    routes: dict[str, Any], scalars: Mapping[str, Any], tensor_type: type[Any], count: float = 1.0
) -> list[str] | None:
    """Append every plain finite number of `scalars` to its ring; return the keys left over."""
    rest: list[str] = []
    for key, value in scalars.items():
        ring = routes.get(key)
        if type(value) is tensor_type and value.is_cpu and value.numel() == 1:
            value = value.item()
        if ring is None or not isinstance(value, float | int) or not math.isfinite(value):
            rest.append(key)
        else:
            ring.append(value, count)
    return rest or None


PutScalars = Callable[..., "list[str] | None"]


def _compiled() -> Any:
    module = native.module() if native.enabled() else None
    return module if hasattr(module, "Ring") else None


def make_ring(max_length: int) -> Ring:
    """A new ring: compiled, or of arrays when the compiled module is missing or switched off."""
    compiled = _compiled()
    ring: Ring = compiled.Ring(max_length) if compiled else ArrayRing(max_length)
    return ring


def choose_put_scalars() -> PutScalars:
    """The function that fills many rings in one call; it must get rings of `make_ring`."""
    compiled = _compiled()
    return compiled.put_scalars if compiled else _put_scalars


def read_scalar(value: Any) -> float:
    """Turn one number (Python, numpy, or a tensor or array of one element) into a Python number.

    Reading a tensor of a device is a sync point.

    Raises:
        TypeError: it is no number.
        ValueError: it has more or fewer elements than one.
    """
    if isinstance(value, float | int):
        return value
    if isinstance(value, np.ndarray | Tensor):
        size = value.numel() if isinstance(value, Tensor) else value.size
        if size != 1:
            shape = tuple(value.shape)
            raise ValueError(f"a scalar must have exactly one element, got the shape {shape}")
        value = value.item()  # sync point on a device
    elif isinstance(value, np.number):
        value = value.item()
    if not isinstance(value, float | int):
        raise TypeError(
            "a scalar must be a Python or numpy number, or a tensor or array of one element, "
            f"got {type(value)}"
        )
    return value


def require_scalar(tensor: Tensor) -> None:
    """Check that a tensor is one real number, without reading it.

    Raises:
        TypeError: it is complex.
        ValueError: it has more or fewer elements than one.
    """
    if tensor.numel() != 1:
        raise ValueError(
            f"a scalar must have exactly one element, got the shape {tuple(tensor.shape)}"
        )
    if tensor.is_complex():
        raise TypeError(f"a scalar must be a real number, got a tensor of {tensor.dtype}")
