"""Named series of scalars, filled by one call per iteration and flushed by one copy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from fasttrain.core.history import Series
from fasttrain.core.pending import Later, PendingFlush, PendingQueue
from fasttrain.core.ring import Ring, choose_put_scalars, read_scalar, require_scalar
from fasttrain.core.transfer import Reader


class ScalarStore:
    """Name -> series; scalars of a device stay there, in order, until a flush.

    Args:
        max_length: the number of pairs that a series keeps.
        reader: what counts as "on a device" and how it is fetched; for tests and other devices.
        on_new: called with the name of each series made here, once it holds its first value.

    Attributes:
        defers: tells whether a tensor is left on its device until a flush.
        step: the iteration that puts belong to; only used to say when a number was not finite.
        nonfinite: name -> number of infinite and NaN numbers noticed so far.
        nonfinite_steps: name -> the step of the latest of them.
    """

    def __init__(
        self,
        max_length: int = 1_000_000,
        *,
        reader: Reader | None = None,
        on_new: Callable[[str], None] | None = None,
    ) -> None:
        self.max_length = max_length
        self._on_new = on_new
        self.step = 0
        self.nonfinite: dict[str, int] = {}
        self.nonfinite_steps: dict[str, int] = {}
        self._queue = PendingQueue(reader, self._note_nonfinite)
        self._series: dict[str, Series] = {}
        # prefix -> short name -> ring: what the batch call writes to without asking anyone.
        self._direct: dict[str, Ring] = {}
        self._routes: dict[str, dict[str, Ring]] = {"": self._direct}
        # prefix -> names and count of the last row, its series, and their counts.
        self._rows: dict[str, tuple[tuple[Any, ...], list[Series], list[float]]] = {}
        self._put_scalars = choose_put_scalars()
        self._adapt()

    def _adapt(self) -> None:
        reader = self._queue.reader
        self.defers = reader.defers
        self._tensor_type: type[Any] = Tensor if reader.direct else type(None)

    def use_reader(self, reader: Reader) -> None:
        """From now on fetch by `reader`; what waits is fetched by the one before (sync point)."""
        with self._queue.lock:
            self.flush()
            self._queue.use(reader)
            self._adapt()

    def series(self, name: str) -> Series:
        """The series called `name`, made when it is missing."""
        found = self._series.get(name)
        if found is not None:
            return found
        with self._queue.lock:
            if name not in self._series:
                self._show({name: self._make(name)})
            return self._series[name]

    def _make(self, name: str) -> Series:
        return Series(self.max_length, queue=self._queue, name=name)

    def _find(self, name: str, made: dict[str, Series]) -> Series:
        """The series called `name`, made into `made` when it is missing; needs the lock."""
        found = self._series.get(name)  # an empty series counts as false
        if found is None:
            found = made.get(name)
        if found is None:
            found = made[name] = self._make(name)
        return found

    def _show(self, made: dict[str, Series]) -> None:
        """Let others see series; what a put makes has its first value before."""
        for name, series in made.items():
            self._series[name] = series
            if self._on_new is not None:
                self._on_new(name)

    def __contains__(self, name: object) -> bool:
        return name in self._series

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def adopt(self, name: str, series: Series) -> None:
        """Take in a series made elsewhere, in place of one of that name."""
        if self._series.get(name) is series and series.queue is self._queue:
            return
        if series.queue is not self._queue:
            series.flush()
        with self._queue.lock:
            series.queue, series.name = self._queue, name
            self._series[name] = series
            self._forget_routes()

    def discard(self, name: str) -> None:
        """Forget a series, if there is one of that name; it lives on for who holds it."""
        with self._queue.lock:
            self._series.pop(name, None)
            self._forget_routes()

    def _forget_routes(self) -> None:
        self._rows.clear()
        for routes in self._routes.values():
            routes.clear()

    def put(self, name: str, value: Any, count: Any = 1.0) -> None:
        """Append one scalar; same rules as `put_many`."""
        if type(value) is float:
            ring = self._direct.get(name)
            if ring is None or self._queue.busy or not math.isfinite(value):
                self.put_many({name: value}, count=read_scalar(count))
            else:
                ring.append(value, count if type(count) is int else read_scalar(count))
            return
        made: dict[str, Series] = {}
        with self._queue.lock:
            self._find(name, made).append(value, count, self.step)
            self._show(made)

    def put_many(self, scalars: Mapping[str, Any], prefix: str = "", count: float = 1.0) -> None:
        """Append each value to the series `prefix + key`.

        A value is a Python or numpy number, a tensor or array of one element, or a mapping of
        `value` and its own `count`. A device tensor is read at the next flush, as it is now.

        Raises:
            TypeError: a value is no number.
            ValueError: a value has not exactly one element.
        """
        rest: Any = scalars
        if not self._queue.busy and isinstance(scalars, dict):
            routes = self._routes.get(prefix)
            if routes is None:
                routes = self._routes[prefix] = {}
            rest = self._put_scalars(routes, scalars, self._tensor_type, count)
        if rest and not (len(rest) == len(scalars) and self._put_row(scalars, prefix, count)):
            self._put_rest(rest, scalars, prefix, count)

    def _put_row(self, scalars: Mapping[str, Any], prefix: str, count: float) -> bool:
        """Take scalars that make one row, as tensors of one device do; whether they did."""
        values = list(scalars.values())
        if not (isinstance(values[0], Tensor) and self.defers(values[0])):
            return False
        queue = self._queue
        with queue.lock:
            row = queue.take(values)
            if row is None:
                return False
            names = (*scalars, count)
            known, series, counts = self._rows.get(prefix, ((), [], []))
            made: dict[str, Series] = {}
            if names != known:
                series = [self._find(f"{prefix}{key}" if prefix else key, made) for key in scalars]
                counts = [read_scalar(count)] * len(series)
                self._rows[prefix] = (names, series, counts)
            queue.put_row(series, row, counts, self.step)
            self._show(made)
        return True

    def _put_rest(
        self, keys: Any, scalars: Mapping[str, Any], prefix: str, count_of_all: float
    ) -> None:
        """Take what the batch call left: new names, device scalars, counts, odd numbers."""
        made: dict[str, Series] = {}
        deferred: list[tuple[Series, Tensor, float]] = []
        queue, defers = self._queue, self._queue.reader.defers
        with queue.lock:
            try:
                for key in keys:
                    value, count = scalars[key], count_of_all
                    if isinstance(value, Mapping):
                        if "value" not in value:
                            raise ValueError(f"{key}: value must be defined in {value}")
                        value, count = value["value"], read_scalar(value.get("count", 1.0))
                    name = f"{prefix}{key}" if prefix else key
                    # What is no number must not leave an empty series behind.
                    if isinstance(value, Tensor) and defers(value):
                        require_scalar(value)
                        deferred.append((self._find(name, made), value, count))
                        continue
                    number = read_scalar(value)
                    series = self._find(name, made)
                    if queue.busy or deferred:
                        queue.put_host(series, number, count, self.step)
                    else:
                        queue.write(series, number, count, self.step)
                        self._routes.setdefault(prefix, {})[key] = series.ring
            finally:  # an error of one value leaves those before it
                if deferred:
                    series_list, tensors, counts = zip(*deferred, strict=True)
                    queue.put_tensors(list(series_list), list(tensors), list(counts), self.step)
                self._show(made)

    def put_later(self, name: str, value: Later, count: float = 1.0) -> None:
        """Append a number that is resolved at the next flush, for example of device events."""
        made: dict[str, Series] = {}
        with self._queue.lock:
            self._queue.put_host(self._find(name, made), value, count, self.step)
            self._show(made)

    @property
    def pending(self) -> bool:
        """Whether something waits for a device."""
        return self._queue.busy

    def flush(self) -> None:
        """Bring everything into the series (sync point when a device scalar waits)."""
        self._queue.flush()

    def settle(self) -> None:
        """As `flush`, except that scalars wait on whose fetching takes all processes."""
        self._queue.settle()

    def begin_flush(self, on_done: Callable[[], None] | None = None) -> PendingFlush:
        """Start fetching what waits, in one copy; `finish` or any reading completes it.

        Args:
            on_done: called when all series stand as they do now, before any later put shows;
                at once when nothing waits.
        """
        return self._queue.begin(on_done)

    def _note_nonfinite(self, series: Series, step: int) -> None:
        self.nonfinite[series.name] = self.nonfinite.get(series.name, 0) + 1
        self.nonfinite_steps[series.name] = step
