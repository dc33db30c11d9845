"""Whether an optimizer's steps alone change what it updates: only then may a save copy it late."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fasttrain.core.checkpoint.restricted import CheckpointError

_logger = logging.getLogger("fasttrain.checkpoint")
_WATCH = "_watched_by_saves"  # an attribute of optimizers
_ONCE = "before_next_step"  # a method of optimizers that can call back once
_PLAIN = (Tensor, Parameter)


class Period:
    """The tensors that a save copies late, from the save until nothing depends on them any more."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self._versions = [tensor._version for tensor in tensors]
        self._lock = threading.Lock()
        self._num_torn: int | None = None

    def num_changed(self) -> int:
        """How many tensors were changed since the save."""
        now = (tensor._version for tensor in self.tensors)
        return sum(one != other for one, other in zip(now, self._versions, strict=True))

    def end(self) -> None:
        """Later changes do no harm: the copy is complete, or they wait for it. Once is enough."""
        with self._lock:
            if self._num_torn is None:
                self._num_torn = self.num_changed()

    def check(self) -> None:
        """End it, and see whether the copy is that of one moment.

        Raises:
            CheckpointError: it may be partly newer than the save.
        """
        self.end()
        if self._num_torn:
            raise CheckpointError(
                f"{self._num_torn} of {len(self.tensors)} parameters and optimizer states were "
                "changed by something other than an optimizer step while they were copied, so the "
                "copy may be torn. Save with blocking=True, or call "
                "fasttrain.core.checkpoint.order_after_copies(optimizers) before the change; "
                "later saves of this run copy at once"
            )


class Watch:
    """Over the parameters and states of one optimizer, from each save to the next step.

    A late copy is right as long as a step, which waits for it, is all that changes its source.
    Nobody promises that: an embedding with `max_norm` changes its weights in forward, a hook may
    clip them, and a CUDA graph that holds the step changes them unseen when it is replayed. So the
    first save copies at once, and only looks: contents and version counters at the save and just
    before the next step. When they are equal, later saves copy late, and each still checks the
    version counters.
    """

    def __init__(self) -> None:
        self._is_sole: bool | None = None  # whether steps alone change the tensors; None: not known
        self._period: Period | None = None
        self._at_save: list[Tensor] = []  # contents, while that is being learned
        self._evidence: tuple[list[Tensor], list[Tensor]] | None = None
        self._was_announced = False
        self._events: list[tuple[torch.device, Any]] = []

    @classmethod
    def of(cls, optimizer: Any) -> Watch:
        """The optimizer's own, made at the first call."""
        found: Watch | None = optimizer.__dict__.get(_WATCH)
        if found is None:
            found = optimizer.__dict__[_WATCH] = cls()
            if not hasattr(optimizer, _ONCE):
                # It stays: a hook cannot take itself off while torch goes through the hooks.
                optimizer.register_step_pre_hook(lambda *_: found.before_step())
        return found

    def begin(self, optimizer: Any) -> Period | None:
        """Watch from a save on; None when what the optimizer updates must be copied at once."""
        self._order()
        if self._is_sole is None and self._evidence is not None:
            self._is_sole = _equal(*self._evidence)  # sync point, once for an optimizer
            self._evidence = None
            self._say()
        if getattr(optimizer, "is_captured", False):
            self._is_sole = False
        if self._is_sole is False:
            return None
        if hasattr(optimizer, _ONCE):
            getattr(optimizer, _ONCE)(self.before_step)
        self._was_announced = False
        self._period = Period(updated_tensors(optimizer))
        if self._is_sole:
            return self._period
        self._at_save = _contents(self._period.tensors)
        return None

    def add(self, device: torch.device, done: Any) -> None:
        """Let the next change wait for an event: the end of a late copy."""
        self._events.append((device, done))

    def before_change(self) -> None:
        """Order a change that is no step, and that is undone before the next step, after copies."""
        self._order()
        self._was_announced = True
        if self._period is not None:
            self._period.end()

    def before_step(self) -> None:
        """Order a step after the copies, and learn from the time since the save."""
        if _is_capturing():  # replays will step without this call
            self._events.clear()  # a capture begins with an idle device
            self._period, self._is_sole = None, False
            return
        self._order()
        period, self._period = self._period, None
        if period is None:
            return
        period.end()
        if period.num_changed() and not self._was_announced:
            self._is_sole = False
            self._say()
        elif self._is_sole is None:
            self._evidence = (self._at_save, _contents(period.tensors))
        self._at_save = []

    def _order(self) -> None:
        while self._events:
            device, done = self._events.pop()
            torch.cuda.current_stream(device).wait_event(done)

    def _say(self) -> None:
        if self._is_sole is False:
            _logger.info(
                "parameters or optimizer states are changed by something other than their "
                "optimizer's steps: saves wait until they are copied"
            )


def _is_capturing() -> bool:
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started and torch.cuda.is_current_stream_capturing()


def updated_tensors(optimizer: Any) -> list[Tensor]:
    """The parameters that steps of an optimizer may change, and its states.

    Frozen parameters are left out: who has them in an optimizer changes them by other means. So are
    subclasses of tensors, whose memory is somewhere else.
    """
    params = (param for group in optimizer.param_groups for param in group["params"])
    states = (value for state in optimizer.state.values() for value in state.values())
    trained = [param for param in params if type(param) in _PLAIN and param.requires_grad]
    return trained + [value for value in states if type(value) in _PLAIN]


def order_after_copies(optimizers: Iterable[Any]) -> None:
    """Make the device finish copying these optimizers' parameters before what is enqueued next.

    Their own steps see to it. Whoever changes the parameters by other means, such as an exchange
    with averaged weights, calls this first; it costs nothing when no copy is under way.
    """
    for optimizer in optimizers:
        if _WATCH in optimizer.__dict__:
            Watch.of(optimizer).before_change()


def _contents(tensors: Iterable[Tensor]) -> list[Tensor]:
    """A sum over each storage's words, shape [], int64, on the device: no two contents share it."""
    sums = []
    for tensor in tensors:
        storage = tensor.untyped_storage()
        dtype = torch.uint8 if storage.nbytes() % 4 else torch.int32
        words: Tensor = torch.empty(0, dtype=dtype, device=tensor.device)
        sums.append(words.set_(storage).sum(dtype=torch.int64))  # type: ignore[call-overload]
    return sums


def _equal(then: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    return all(bool(one == other) for one, other in zip(then, now, strict=True))
