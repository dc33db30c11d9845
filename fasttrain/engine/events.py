"""EventStorage: a run's scalars, images and histograms, as a view of the core's ScalarStore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from fasttrain.core.history import Series
from fasttrain.core.pending import Reader
from fasttrain.core.store import ScalarStore

_STACK: list[EventStorage] = []


def get_event_storage() -> EventStorage:
    """The storage that was opened last and is still open.

    Raises:
        AssertionError: there is none.
    """
    assert _STACK, "get_event_storage() has to be called inside a 'with EventStorage(...)' context!"
    return _STACK[-1]


def has_event_storage() -> bool:
    """Whether some storage is open."""
    return bool(_STACK)


class HistoryBuffer:
    """The history of one name, read only; what still waits for the device is fetched first.

    The core's series keeps pairs; here the second one is the iteration.
    """

    def __init__(self, series: Series) -> None:
        self._series = series
        # The mean of all values is kept up from call to call: its cost is that of the new ones.
        self._sum = 0.0
        self._num_summed = 0
        self._num_seen = 0

    def __len__(self) -> int:
        return len(self._series)

    def latest(self) -> float:
        """The newest value."""
        return self._series.current()

    def median(self, window_size: int) -> float:
        """The median of the last `window_size` values."""
        return self._series.median(window_size)

    def avg(self, window_size: int) -> float:
        """The mean of the last `window_size` values."""
        size = min(window_size, len(self._series))
        return self._series.ring.sums(size)[0] / size

    def global_avg(self) -> float:
        """The mean of all values ever put in (of those still kept, when it is asked for late)."""
        total = self._series.total
        num_new = min(total - self._num_seen, len(self._series))
        self._sum += self._series.ring.sums(num_new)[0]
        self._num_summed += num_new
        self._num_seen = total
        return self._sum / self._num_summed

    def values(self) -> list[tuple[float, int]]:
        """(value, iteration), oldest first."""
        values, iterations = self._series.window()
        return [(v, int(i)) for v, i in zip(values.tolist(), iterations.tolist(), strict=True)]

    def recent(self, num_iters: int) -> tuple[float, int, float, int]:
        """The newest value, its iteration, and of the last `num_iters` iterations up to that one
        the median and the number of the values."""
        value, iteration, median, num_values = self._series.recent(num_iters)
        return value, int(iteration), median, num_values


class EventStorage:
    """Named scalars with the iteration they belong to; no put waits for the device.

    Use it as a context: `get_event_storage()` then finds it anywhere below.

    Args:
        start_iter: the first iteration.
        reader: see ScalarStore; for tests and other devices.

    Attributes:
        iter: the running iteration; set it, or call `step`.
        store: where the scalars live.
        defers: tells whether a tensor is left on its device until a flush.
    """

    def __init__(self, start_iter: int = 0, *, reader: Reader | None = None) -> None:
        self.iter = start_iter
        self.store = ScalarStore(reader=reader)
        self.defers = self.store.defers
        self._histories: dict[str, HistoryBuffer] = {}  # of the store's series, made when read
        self._unsmoothed: set[str] = set()  # the few names whose hint is False
        self._prefix = ""
        self._vis_data: list[tuple[str, Tensor, int]] = []
        self._histograms: list[dict[str, Any]] = []

    @property
    def prefix(self) -> str:
        """What the open name scopes put before every name."""
        return self._prefix

    def put_scalar(
        self,
        name: str,
        value: Any,
        smoothing_hint: bool = True,
        *,
        cur_iter: int | None = None,
    ) -> None:
        """Add a scalar; a tensor on a device is read at the next flush, not now.

        Args:
            name: completed by the name scopes that are open.
            value: a number, or a tensor of one element.
            smoothing_hint: whether the value is noisy and wants smoothing when shown.
            cur_iter: the iteration it belongs to, when not the running one.
        Raises:
            AssertionError: the hint differs from the one that the name had before.
        """
        self.put_all({name: value}, smoothing_hint, cur_iter=cur_iter)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any
    ) -> None:
        """`put_scalar` for every keyword."""
        self.put_all(kwargs, smoothing_hint, cur_iter=cur_iter)

    def put_all(
        self,
        scalars: Mapping[str, Any],
        smoothing_hint: bool = True,
        *,
        cur_iter: int | None = None,
    ) -> None:
        """`put_scalar` for every entry, in one call of the store."""
        if not smoothing_hint:
            self._note_unsmoothed(scalars)
        elif self._prefix:
            self._refuse([name for name in scalars if self._prefix + name in self._unsmoothed])
        elif not scalars.keys().isdisjoint(self._unsmoothed):
            self._refuse([name for name in scalars if name in self._unsmoothed])
        iteration = self.iter if cur_iter is None else cur_iter
        self.store.put_many(scalars, self._prefix, int(iteration))

    def _note_unsmoothed(self, names: Iterable[str]) -> None:
        new = [name for name in names if self._prefix + name not in self._unsmoothed]
        self._refuse([name for name in new if self._prefix + name in self.store])
        self._unsmoothed.update(self._prefix + name for name in new)

    def _refuse(self, names: list[str]) -> None:
        assert not names, (
            f"Scalar {self._prefix + names[0]} was put with a different smoothing_hint!"
        )

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep an image for the writers: [C, H, W], uint8 in 0..255 or float in 0..1, RGB."""
        self._vis_data.append((img_name, img_tensor, self.iter))

    def put_histogram(self, hist_name: str, hist_tensor: Tensor, bins: int = 1000) -> None:
        """Keep a histogram of all elements of a tensor for the writers (sync point)."""
        values = hist_tensor.detach().float()
        low, high = values.min().item(), values.max().item()
        counts = torch.histc(values.cpu(), bins=bins)
        edges = torch.linspace(low, high, steps=bins + 1, dtype=torch.float32)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": values.numel(),
                "sum": float(values.sum()),
                "sum_squares": float((values**2).sum()),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": counts.tolist(),
                "global_step": self.iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """The history of a name.

        Raises:
            KeyError: nothing was put under that name.
        """
        histories = self._all_histories()
        if name not in histories:
            raise KeyError(f"No history metric available for {name}!")
        return histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """Name -> history."""
        return dict(self._all_histories())

    def _all_histories(self) -> dict[str, HistoryBuffer]:
        if len(self._histories) != len(self.store):
            for name in self.store:
                if name not in self._histories:
                    self._histories[name] = HistoryBuffer(self.store.series(name))
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """Name -> (newest value, its iteration); a sync point when scalars wait on a device."""
        return {
            name: history.recent(1)[:2]
            for name, history in self._all_histories().items()
            if len(history)
        }

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """As `latest`, but the median over the last iterations where smoothing was hinted."""
        smoothed: dict[str, tuple[float, int]] = {}
        for name, history in self._all_histories().items():
            if len(history):
                value, iteration, median, _ = history.recent(window_size)
                smoothed[name] = (value if name in self._unsmoothed else median, iteration)
        return smoothed

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of `name` fall into the `window_size` iterations up to its newest."""
        return self.history(name).recent(window_size)[3]

    def smoothing_hints(self) -> dict[str, bool]:
        """Name -> whether it wants smoothing."""
        return {name: name not in self._unsmoothed for name in self.store}

    def flush(self) -> None:
        """Bring home what waits on a device (sync point)."""
        self.store.flush()

    def step(self) -> None:
        """Go on to the next iteration, for loops that do not set `iter`."""
        self.iter += 1

    @property
    def iteration(self) -> int:
        """The same as `iter`."""
        return self.iter

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put `name/` before the names of all scalars put within."""
        outer = self._prefix
        self._prefix = outer + name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = outer

    def clear_images(self) -> None:
        """Forget the images; called by the writer that wrote them."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget the histograms; called by the writer that wrote them."""
        self._histograms = []

    def __enter__(self) -> EventStorage:
        _STACK.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert _STACK[-1] is self, "EventStorage contexts must close in reverse order"
        _STACK.pop()


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested results as one dict, with `/` between the levels of a name."""
    flat: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat.update(flatten_results(value, f"{prefix}{name}/"))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
