"""Save in the background: snapshot now, write while training goes on, tell errors later."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fasttrain.core.checkpoint.container import Plan, take_apart
from fasttrain.core.checkpoint.mapped_file import MappedFile, can_map
from fasttrain.core.checkpoint.restricted import CheckpointError
from fasttrain.core.checkpoint.snapshot import HostBuffer, snapshot

_logger = logging.getLogger("fasttrain.checkpoint")
NOTABLE_WAIT_S = 1.0
_PATIENCE_S = 1.0  # how long to wait before looking whether the writing thread was started


class _Taken(Protocol):
    """A state that was copied and can be written."""

    def write(self, path: str, *, durable: bool) -> None: ...
    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Job:
    path: str
    taken: _Taken
    buffer: HostBuffer | None
    durable: bool
    on_saved: Callable[[], None]


class Writer:
    """Writes checkpoints in a thread of its own, one after the other, in the order of submission.

    The thread stays from save to save: to start one may take milliseconds where the cores are busy.
    A process that ends, by an exception too, first finishes its files.

    Args:
        max_in_flight: how many saves may be unfinished, and so how many snapshots are held.
        policy: whether a further save waits for a place, or is skipped; the log says so.
    """

    def __init__(self, max_in_flight: int = 1, policy: Literal["wait", "skip"] = "wait") -> None:
        self.configure(max_in_flight, policy)
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._taking: set[object] = set()  # saves that are being copied
        self._is_writing = False
        self._errors: list[tuple[str, BaseException]] = []
        self._thread: ThreadPoolExecutor | None = None
        self._thread_pid = 0  # a forked process has the object, not the thread
        self._run: object = None  # names what works through the jobs, while something does
        self._spare: MappedFile | None = None
        self._free: list[HostBuffer] = []
        self._buffers: list[HostBuffer] = []
        self._reported_bytes = 0

    def configure(self, max_in_flight: int = 1, policy: Literal["wait", "skip"] = "wait") -> None:
        """Change the limit and the policy for the saves to come."""
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be >= 1, got {max_in_flight}")
        if policy not in ("wait", "skip"):
            raise ValueError(f"policy must be 'wait' or 'skip', got {policy!r}")
        self.max_in_flight = max_in_flight
        self.policy = policy

    @property
    def is_full(self) -> bool:
        """Whether a further save would wait or be skipped."""
        return self.in_flight >= self.max_in_flight

    @property
    def in_flight(self) -> int:
        """Saves that are submitted and not finished."""
        return len(self._taking) + len(self._jobs) + self._is_writing

    @property
    def buffer_bytes(self) -> int:
        """Host memory held for snapshots, a file prepared in memory included."""
        spare = self._spare
        held = sum(buffer.num_bytes for buffer in self._buffers)
        return held + (0 if spare is None else spare.num_bytes)

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
            updated_by: the optimizers of the state. On a GPU, what they update may be copied as
                late as in their next step, see `snapshot`: until then change it by steps alone, or
                call `order_after_copies` first. A save that finds otherwise fails.

        Raises:
            CheckpointError: an earlier save failed; this one was not begun.
            TypeError: an entry has no plain form.
        """
        self.check()
        name = os.path.abspath(path)  # the working folder may be another one when it is written
        place = object()
        try:  # an interrupt anywhere in here must not leave a place taken
            if not self._take_place(name, place):
                return False
            taken, buffer = self._take(take_apart(state), name, updated_by)
            self._report_memory()
            with self._changed:
                self._taking.discard(place)
                self._jobs.append(_Job(name, taken, buffer, durable, on_saved))
                self._ensure_run()
        finally:
            with self._changed:
                self._taking.discard(place)
                self._changed.notify_all()
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
            while not self._changed.wait_for(lambda: self.in_flight == 0, _PATIENCE_S):
                self._ensure_run()
        self.check()

    @property
    def is_at_work(self) -> bool:
        """Whether the thread writes, or prepares the next save."""
        return self._run is not None and self._thread_pid == os.getpid()

    def rest(self) -> None:
        """Wait until every submitted save is finished and the next one is prepared."""
        with self._changed:
            while not self._changed.wait_for(lambda: not self.is_at_work, _PATIENCE_S):
                pass

    def close(self) -> None:
        """Drain and give the snapshots' memory back."""
        try:
            self.drain()
        finally:
            if self._thread is not None and self._thread_pid == os.getpid():
                self._thread.shutdown()  # once it is at rest
            self._thread = None
            with self._changed:
                self._free.clear()
                self._buffers.clear()
                if self._spare is not None:
                    self._spare.discard()
                    self._spare = None

    def _report_memory(self) -> None:
        """Log the host memory that is held when it has grown."""
        held = self.buffer_bytes
        if held >= self._reported_bytes + 2**20:
            self._reported_bytes = held
            _logger.info(
                "%d MiB of host memory are held for checkpoints in the background", held >> 20
            )

    def _ensure_run(self) -> None:
        """Have somebody work through the jobs, if there are any; with the lock held."""
        if not self._jobs or self.is_at_work:
            return
        if self._thread is None or self._thread_pid != os.getpid():
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="fasttrain-checkpoint")
            self._thread_pid = os.getpid()
        run = object()
        self._thread.submit(self._work, run)
        self._run = run  # not before: an interrupt in between is made good by the next call

    def _take_place(self, name: str, place: object) -> bool:
        with self._changed:
            if self.is_full:
                if self.policy == "skip":
                    _logger.warning(
                        "checkpoint %s is skipped: %d saves are still in flight",
                        name,
                        self.in_flight,
                    )
                    return False
                start = time.perf_counter()
                while not self._changed.wait_for(lambda: not self.is_full, _PATIENCE_S):
                    self._ensure_run()
                waited_s = time.perf_counter() - start
                _logger.log(
                    logging.INFO if waited_s >= NOTABLE_WAIT_S else logging.DEBUG,
                    "checkpoint %s waited %.3f s for an earlier save to finish",
                    name,
                    waited_s,
                )
            self._taking.add(place)
        return True

    def _take(
        self, plan: Plan, name: str, updated_by: Iterable[Any]
    ) -> tuple[_Taken, HostBuffer | None]:
        """Copy the state: into a file prepared in memory when it fits, else into a buffer."""
        with self._changed:
            spare, self._spare = self._spare, None
        if spare is not None:
            if spare.take(plan, name):
                return spare, None
            spare.discard()
        buffer = self._take_buffer(plan)
        return snapshot(plan, buffer, updated_by=updated_by), buffer

    def _take_buffer(self, plan: Plan) -> HostBuffer:
        pinned = any(storage.device.type == "cuda" for storage in plan.storages)
        with self._changed:
            for buffer in self._free:
                if buffer.pinned == pinned:
                    self._free.remove(buffer)
                    return buffer
            buffer = HostBuffer(pinned=pinned)
            self._buffers.append(buffer)
        return buffer

    def _work(self, run: object) -> None:
        try:
            while self._do_next(run):
                pass
        except BaseException:  # not of a write: of what comes behind one
            _logger.exception("the thread that writes checkpoints failed; the next save goes on")
            with self._changed:
                self._run = None
                self._changed.notify_all()

    def _do_next(self, run: object) -> bool:
        """Write the next file; False when there is none."""
        with self._changed:
            if self._run is not run:
                return False  # its submission was interrupted, and another one took over
            if not self._jobs:
                self._run = None
                self._changed.notify_all()
                return False
            job = self._jobs.popleft()
            self._is_writing = True
        error = _write(job)
        with self._changed:
            if error is not None:
                self._errors.append((job.path, error))
            if job.buffer is not None:
                self._free.append(job.buffer)
            self._is_writing = False
            self._changed.notify_all()
        job.taken.release()
        on_host = job.buffer is None or not job.buffer.pinned
        if error is None and on_host and can_map(job.path):
            self._prepare(job.path)
        return True

    def _prepare(self, path: str) -> None:
        """Prepare the next file in memory; it takes the place of the buffers."""
        try:
            spare = MappedFile.like(path)
        except OSError as error:  # no room for one more: the buffers stay in use
            _logger.info("no file was prepared beside %s: %s", path, error)
            return
        with self._changed:
            self._spare = spare
            for buffer in self._free:
                self._buffers.remove(buffer)
            self._free.clear()


def _write(job: _Job) -> BaseException | None:
    """Write one file; the error, if any, goes to the training thread."""
    try:
        job.taken.write(job.path, durable=job.durable)
        job.on_saved()
    except BaseException as error:
        _logger.error("checkpoint %s could not be saved: %s", job.path, error)
        return error
    return None
