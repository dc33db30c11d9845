"""Ctrl-C as a request: the running iteration is finished before the run ends."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

MESSAGE = b"\nInterrupted: finishing the running iteration. Press Ctrl-C again to stop at once.\n"


class Interrupt:
    """While entered, the first Ctrl-C sets `requested`; the second one raises KeyboardInterrupt.

    Does nothing outside the main thread or where someone else handles the signal.
    """

    def __init__(self) -> None:
        self.requested = False
        self._depth = 0
        self._previous: Any = None
        self._process = 0

    def __enter__(self) -> Interrupt:
        self._depth += 1
        if self._depth > 1:
            return self
        self.requested = False
        self._process = os.getpid()
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A dataloader's worker: it goes on, so that the running iteration gets its data.
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            return
        if self.requested:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, MESSAGE)  # printing from a signal handler could meet a half-done print
