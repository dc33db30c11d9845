"""The history of one logged scalar, with statistics over windows of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fasttrain.core.history import Series


class HistoryBuffer:
    """A bounded history of values and of how many samples each value sums up.

    Args:
        log_history: values to start with.
        count_history: the count of each of them.
        max_length: the number of entries kept; the oldest are dropped.

    Raises:
        AssertionError: the two histories differ in length.
    """

    _statistics_methods: dict[str, Callable[..., Any]] = {}

    def __init__(
        self,
        log_history: Sequence[float] | np.ndarray | Any = (),
        count_history: Sequence[float] | np.ndarray | Any = (),
        max_length: int = 1_000_000,
    ) -> None:
        assert len(log_history) == len(count_history), (
            "The lengths of log_history and count_history should be equal, "
            f"but got {len(log_history)} and {len(count_history)}"
        )
        self._series = Series(max_length)
        self._set_default_statistics()
        self._series.extend(log_history, count_history)
        self._series.ring.integral = len(log_history) > 0 and _is_integral(log_history)

    @classmethod
    def over(cls, series: Series) -> HistoryBuffer:
        """A buffer that shows `series` instead of owning one."""
        buffer = cls.__new__(cls)
        buffer._series = series
        buffer._set_default_statistics()
        return buffer

    def _set_default_statistics(self) -> None:
        for method in (HistoryBuffer.min, HistoryBuffer.max, HistoryBuffer.current):
            self._statistics_methods.setdefault(method.__name__, method)
        self._statistics_methods.setdefault("mean", HistoryBuffer.mean)

    def update(self, log_val: int | float, count: int | float = 1) -> None:
        """Append one value.

        Raises:
            TypeError: `log_val` or `count` is no Python number.
        """
        series = self._series
        try:
            if series.queue.busy and isinstance(log_val, int | float):
                series.append(log_val, count)
            else:
                series.ring.append(log_val, count)
        except TypeError as e:
            raise TypeError(
                f"log_val must be int or float but got {type(log_val)}, "
                f"count must be int or float but got {type(count)}"
            ) from e

    @property
    def max_length(self) -> int:
        """The number of entries kept."""
        return self._series.max_length

    _max_length = max_length

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of all values and counts, oldest first."""
        return self._window(None)

    @property
    def _log_history(self) -> np.ndarray:
        return self.data[0]

    @property
    def _count_history(self) -> np.ndarray:
        return self.data[1]

    def _window(self, window_size: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Values and counts of a window; longer than the history, or 0, means all of it."""
        if window_size is not None:
            assert isinstance(window_size, int), (
                f"The type of window size should be int, but got {type(window_size)}"
            )
        values, counts = self._series.window(
            window_size if window_size is not None and window_size > 0 else None
        )
        if window_size is not None and window_size < 0:
            values, counts = values[-window_size:], counts[-window_size:]
        if self._series.ring.integral and len(values):
            values = values.astype(np.int64)
        return values, counts

    @classmethod
    def register_statistics(cls, method: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: make `method(buffer, ...)` callable by its name through `statistics`.

        Raises:
            AssertionError: a method of this name is registered already.
        """
        name = method.__name__
        assert name not in cls._statistics_methods, (
            f"method_name cannot be registered twice! {name!r} is registered already"
        )
        cls._statistics_methods[name] = method
        return method

    def statistics(self, method_name: str, *arg: Any, **kwargs: Any) -> Any:
        """Call a registered method by its name.

        Raises:
            KeyError: there is none of this name.
        """
        if method_name not in self._statistics_methods:
            raise KeyError(
                f"{method_name} has not been registered in HistoryBuffer._statistics_methods, "
                f"which has {sorted(self._statistics_methods)}"
            )
        return self._statistics_methods[method_name](self, *arg, **kwargs)

    def mean(self, window_size: int | None = None) -> np.ndarray:
        """The sum of the last values over the sum of their counts."""
        if window_size is None or (type(window_size) is int and window_size > 0):
            return np.float64(self._series.mean(window_size))  # type: ignore[return-value]
        values, counts = self._window(window_size)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.float64(values.sum()) / counts.sum()

    def max(self, window_size: int | None = None) -> np.ndarray:
        """The largest of the last values."""
        return self._window(window_size)[0].max()

    def min(self, window_size: int | None = None) -> np.ndarray:
        """The smallest of the last values."""
        return self._window(window_size)[0].min()

    def current(self) -> np.ndarray:
        """The newest value.

        Raises:
            ValueError: the history is empty.
        """
        self._series.flush()
        ring = self._series.ring
        if not len(ring):
            raise ValueError(
                "HistoryBuffer._log_history is an empty array! please call update first"
            )
        return np.int64(ring.last()) if ring.integral else np.float64(ring.last())  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        values, counts = self.data
        return {
            "max_length": self.max_length,
            "_log_history": values,
            "_count_history": counts,
            "statistics_methods": {
                name: method
                for name, method in self._statistics_methods.items()
                if _is_importable(method)
            },
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, method in (state.get("statistics_methods") or {}).items():
            self._statistics_methods.setdefault(name, method)
        max_length = state.get("max_length", state.get("_max_length", 1_000_000))
        HistoryBuffer.__init__(self, state["_log_history"], state["_count_history"], max_length)

    def state_dict(self, limit: int | None = None) -> dict[str, Any]:
        """The last `limit` entries as plain tensors (`values`, `counts`) and numbers."""
        return self._series.state_dict(limit)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned.

        Raises:
            KeyError: the values or the counts are missing.
        """
        self._series.load_state_dict(state_dict)


def _is_integral(history: Any) -> bool:
    kind = np.asarray(history.detach().cpu() if hasattr(history, "detach") else history).dtype.kind
    return kind in "biu"


def _is_importable(method: Callable[..., Any]) -> bool:
    """Whether `method` can be pickled: it is found again by its module and name."""
    found: Any = sys.modules.get(method.__module__)
    for part in method.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is method
