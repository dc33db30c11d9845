"""Measuring time."""

from __future__ import annotations

from time import perf_counter
from typing import Any


class TimerError(Exception):
    """A timer is asked for a time that it does not have."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class Timer:
    """A stopwatch; as a context, it prints the time that the context took.

    Args:
        start: whether to start at once.
        print_tmpl: format of what is printed, such as `"took {:.1f} s"`.
    """

    def __init__(self, start: bool = True, print_tmpl: str | None = None) -> None:
        self._is_running = False
        self._start_s = 0.0
        self._last_check_s = 0.0
        self.print_tmpl = "{:.3f}" if print_tmpl is None else print_tmpl
        if start:
            self.start()

    @property
    def is_running(self) -> bool:
        """Whether the timer was started."""
        return self._is_running

    def __enter__(self) -> Timer:
        self.start()
        return self

    def __exit__(self, type: Any, value: Any, traceback: Any) -> None:
        print(self.print_tmpl.format(self.since_last_check()))
        self._is_running = False

    def start(self) -> None:
        """Start, unless the timer runs already; either way time is next counted from here."""
        now = perf_counter()
        if not self._is_running:
            self._start_s = now
            self._is_running = True
        self._last_check_s = now

    def since_start(self) -> float:
        """Seconds since the start."""
        self._check()
        self._last_check_s = perf_counter()
        return self._last_check_s - self._start_s

    def since_last_check(self) -> float:
        """Seconds since this or `since_start` was last called, or since the start."""
        self._check()
        before, self._last_check_s = self._last_check_s, perf_counter()
        return self._last_check_s - before

    def _check(self) -> None:
        if not self._is_running:
            raise TimerError("timer is not running; call start() first")


_g_timers: dict[str, Timer] = {}


def check_time(timer_id: str) -> float:
    """Seconds since the last call with the same name; 0 at the first one."""
    if timer_id not in _g_timers:
        _g_timers[timer_id] = Timer()
        return 0
    return _g_timers[timer_id].since_last_check()
