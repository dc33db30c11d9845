"""Save in the background: snapshot now, write while training goes on, tell errors later."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fasttrain.core.checkpoint.container import Plan, take_apart, write
from fasttrain.core.checkpoint.restricted import CheckpointError
from fasttrain.core.checkpoint.snapshot import HostBuffer, Snapshot, snapshot

_logger = logging.getLogger("fasttrain.checkpoint")
_NICENESS = 5  # the writing thread gives way to training


@dataclass(frozen=True, slots=True)
class _Job:
    path: str
    taken: Snapshot
    buffer: HostBuffer
    durable: bool
    on_saved: Callable[[], None]


class Writer:
    """Writes checkpoints in a thread of its own, one after the other, in the order of submission.

    The thread is no daemon: a process that ends, by an exception too, first finishes its files.

    Args:
        max_in_flight: how many saves may be unfinished, and so how many snapshots are held.
        policy: whether a further save waits for a place, or is skipped; the log says so.
    """

    def __init__(self, max_in_flight: int = 1, policy: Literal["wait", "skip"] = "wait") -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be >= 1, got {max_in_flight}")
        if policy not in ("wait", "skip"):
            raise ValueError(f"policy must be 'wait' or 'skip', got {policy!r}")
        self.max_in_flight = max_in_flight
        self.policy = policy
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._in_flight = 0
        self._is_running = False
        self._errors: list[tuple[str, BaseException]] = []
        self._free: list[HostBuffer] = []
        self._buffers: list[HostBuffer] = []

    @property
    def in_flight(self) -> int:
        """Saves that are submitted and not finished."""
        return self._in_flight

    @property
    def buffer_bytes(self) -> int:
        """Host memory held for snapshots."""
        return sum(buffer.num_bytes for buffer in self._buffers)

    def submit(
        self,
        state: Any,
        path: str | os.PathLike[str],
        *,
        durable: bool = True,
        on_saved: Callable[[], None] = lambda: None,
        updated_by: Iterable[Any] = (),
    ) -> bool:
        """Snapshot `state` and let it be written; False when it was skipped.

        When this returns, `state` may change. `on_saved` is called in the writing thread once the
        file is durable under its final name, and not at all when it could not be written.

        Args:
            updated_by: the optimizers of the state, see `snapshot`.

        Raises:
            CheckpointError: an earlier save failed; this one was not begun.
            TypeError: an entry has no plain form.
        """
        self.check()
        name = os.fspath(path)
        if not self._take_place(name):
            return False
        try:
            plan = take_apart(state)
            buffer = self._take_buffer(plan)
            job = _Job(
                name, snapshot(plan, buffer, updated_by=updated_by), buffer, durable, on_saved
            )
        except BaseException:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()
            raise
        with self._changed:
            self._jobs.append(job)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="fasttrain-checkpoint").start()
        return True

    def check(self) -> None:
        """Raise the error of a save that failed in the background, once.

        Raises:
            CheckpointError: names the file and the cause.
        """
        with self._changed:
            if not self._errors:
                return
            path, error = self._errors.pop(0)
        raise CheckpointError(
            f"the checkpoint {path!r} could not be saved in the background: {error}"
        ) from error

    def drain(self) -> None:
        """Wait until every submitted save is finished, then `check`."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight == 0)
        self.check()

    def close(self) -> None:
        """Drain and give the snapshots' memory back."""
        try:
            self.drain()
        finally:
            with self._changed:
                self._free.clear()
                self._buffers.clear()

    def _take_place(self, name: str) -> bool:
        with self._changed:
            if self._in_flight >= self.max_in_flight:
                if self.policy == "skip":
                    _logger.warning(
                        "checkpoint %s is skipped: %d saves are still in flight",
                        name,
                        self._in_flight,
                    )
                    return False
                start = time.perf_counter()
                self._changed.wait_for(lambda: self._in_flight < self.max_in_flight)
                _logger.info(
                    "checkpoint %s waited %.3f s for an earlier save to finish",
                    name,
                    time.perf_counter() - start,
                )
            self._in_flight += 1
        return True

    def _take_buffer(self, plan: Plan) -> HostBuffer:
        pinned = any(storage.device.type == "cuda" for storage in plan.storages)
        with self._changed:
            if self._free:
                return self._free.pop()
            buffer = HostBuffer(pinned=pinned and torch.cuda.is_available())
            self._buffers.append(buffer)
        return buffer

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._changed:
                if not self._jobs:
                    self._is_running = False
                    return
                job = self._jobs.popleft()
            error = _write(job)
            with self._changed:
                if error is not None:
                    self._errors.append((job.path, error))
                self._free.append(job.buffer)
                self._in_flight -= 1
                self._changed.notify_all()


def _write(job: _Job) -> BaseException | None:
    """Write one file; the error, if any, goes to the training thread."""
    try:
        job.taken.wait()
        write(job.taken.plan, job.path, crcs=job.taken.crcs, durable=job.durable)
        job.on_saved()
    except BaseException as error:
        _logger.error("checkpoint %s could not be saved: %s", job.path, error)
        return error
    return None
