"""The mean time of a function or a block, over all its runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch


class TimeCounter:
    """Measures a decorated function, or as a context a block, and prints the mean time per run.

    Counters with the same tag are one object, so that a counter made within a loop goes on.

    Args:
        log_interval: number of runs between two lines.
        warmup_interval: the first run that counts, at least 1.
        with_sync: wait for the GPU at both ends of a run.
        tag: printed before the time; the function's name when None.
        logger: takes the lines; None prints them.
    """

    instance_dict: ClassVar[dict[str | None, TimeCounter]] = {}

    log_interval: int
    warmup_interval: int
    with_sync: bool
    tag: str | None
    logger: Any
    _count: int
    _total_s: float
    _start_s: float

    def __new__(
        cls,
        log_interval: int = 1,
        warmup_interval: int = 1,
        with_sync: bool = True,
        tag: str | None = None,
        logger: Any = None,
    ) -> TimeCounter:
        assert warmup_interval >= 1, f"warmup_interval must be at least 1, got {warmup_interval}"
        if tag is not None and tag in cls.instance_dict:
            return cls.instance_dict[tag]
        counter = super().__new__(cls)
        counter.log_interval = log_interval
        counter.warmup_interval = warmup_interval
        counter.with_sync = with_sync
        counter.tag = tag
        counter.logger = logger
        counter._count = 0
        counter._total_s = 0.0
        counter._start_s = 0.0
        cls.instance_dict[tag] = counter
        return counter

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if self.tag is None:
            self.tag = fn.__name__

        @functools.wraps(fn)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)

        return measured

    def __enter__(self) -> TimeCounter:
        assert self.tag is not None, (
            "In order to clearly distinguish printing information in different contexts, please "
            "specify the tag parameter"
        )
        self._count += 1
        self._wait()
        self._start_s = time.perf_counter()
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self._wait()
        self.print_time(time.perf_counter() - self._start_s)

    def _wait(self) -> None:
        if self.with_sync and torch.cuda.is_available():
            torch.cuda.synchronize()  # sync point

    def print_time(self, elapsed: float) -> None:
        """Count a run of so many seconds, and tell the mean when it is due."""
        if self._count < self.warmup_interval:
            return
        self._total_s += elapsed
        if self._count % self.log_interval:
            return
        runs = self._count - self.warmup_interval + 1
        message = (
            f"[{self.tag}]-time per run averaged in the past {self._count} runs: "
            f"{1000 * self._total_s / runs:.1f} ms"
        )
        if self.logger is None:
            print(message, flush=True)
        else:
            self.logger.info(message)
