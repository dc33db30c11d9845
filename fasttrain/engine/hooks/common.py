"""Callbacks, the timer, the writers' clock and the learning-rate scheduler."""

from __future__ import annotations

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fasttrain.engine.trainer_base import HookBase
from fasttrain.engine.writers import EventWriter

logger = logging.getLogger("fasttrain.engine.hooks")

Callback = Callable[[Any], None]


class CallbackHook(HookBase):
    """A hook of plain functions that get the trainer; they are dropped after training."""

    def __init__(
        self,
        *,
        before_train: Callback | None = None,
        after_train: Callback | None = None,
        before_step: Callback | None = None,
        after_step: Callback | None = None,
    ) -> None:
        self._before_train = before_train
        self._before_step = before_step
        self._after_step = after_step
        self._after_train = after_train

    def before_train(self) -> None:
        if self._before_train:
            self._before_train(self.trainer)

    def before_step(self) -> None:
        if self._before_step:
            self._before_step(self.trainer)

    def after_step(self) -> None:
        if self._after_step:
            self._after_step(self.trainer)

    def after_train(self) -> None:
        after_train, self._after_train = self._after_train, None
        self._before_train = self._before_step = self._after_step = None
        if after_train:
            after_train(self.trainer)


class IterationTimer(HookBase):
    """Puts the seconds of each iteration as `time`, and logs a summary at the end.

    Only what lies between `before_step` and `after_step` is counted: not the other hooks.

    Args:
        warmup_iter: the first iteration that is counted, from 1; those before it are left out.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter
        self._step_start = time.perf_counter()

    def before_train(self) -> None:
        self._train_start = time.perf_counter()
        self._steps = 0
        self._num_counted = 0
        self._counted_s = 0.0
        self._warm_start: float | None = None
        self._warm_end = self._train_start

    def before_step(self) -> None:
        self._step_start = time.perf_counter()
        if self._warm_start is None and self._steps + 1 >= self._warmup_iter:
            self._warm_start = self._step_start

    def after_step(self) -> None:
        now = time.perf_counter()
        self._steps += 1
        if self._steps >= self._warmup_iter:
            self._num_counted += 1
            elapsed = now - self._step_start
            self._counted_s += elapsed
            self.trainer.storage.put_all({"time": elapsed})
        self._warm_end = now

    def after_train(self) -> None:
        counted = self._num_counted
        if not counted or self._warm_start is None:
            return
        total = time.perf_counter() - self._warm_start
        logger.info(
            "Overall training speed: %d iterations in %s (%.4f s / it)",
            counted,
            datetime.timedelta(seconds=int(self._counted_s)),
            self._counted_s / counted,
        )
        logger.info(
            "Total training time: %s (%s on hooks)",
            datetime.timedelta(seconds=int(total)),
            datetime.timedelta(seconds=int(max(0.0, total - self._counted_s))),
        )


class PeriodicWriter(HookBase):
    """Lets the writers write every `period` iterations and at the last one; closes them at the end.

    Args:
        writers: what writes.
        period: iterations.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise TypeError(f"writers must be EventWriters, got {type(writer).__name__}")
        if period < 1:
            raise ValueError(f"period must be >= 1, got {period}")
        self._writers = list(writers)
        self._period = period

    def after_step(self) -> None:
        after = self.trainer.iter + 1
        if after % self._period == 0 or after == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """Write what is new since the last write (also after an error), then close."""
        with ExitStack() as closing:  # every writer is closed, whatever another one raises
            for writer in reversed(self._writers):
                closing.callback(writer.close)
                closing.callback(writer.write)


class LRScheduler(HookBase):
    """Puts the learning rate as `lr`, then steps the scheduler, every iteration.

    The rate shown is that of the largest parameter group; where every group holds one parameter,
    the most frequent one.

    Args:
        optimizer: the trainer's when None.
        scheduler: a torch scheduler, or a function of the share of the training that is over, in
            [0, 1), by whose values the first rates are multiplied; the trainer's when None.
    """

    def __init__(self, optimizer: Optimizer | None = None, scheduler: Any = None) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler

    @property
    def scheduler(self) -> Any:
        """The scheduler as it was given, or the trainer's."""
        own = self._scheduler
        return self.trainer.scheduler if own is None else own  # type: ignore[attr-defined]

    def before_train(self) -> None:
        if self._optimizer is None:
            self._optimizer = self.trainer.optimizer  # type: ignore[attr-defined]
        self._best_group = shown_group(self._optimizer)
        scheduler = self.scheduler
        if not hasattr(scheduler, "step"):
            scheduler = multiplied(
                self._optimizer, scheduler, self.trainer.iter, self.trainer.max_iter
            )
        self._step_scheduler = scheduler.step

    def after_step(self) -> None:
        assert self._optimizer is not None
        rate = self._optimizer.param_groups[self._best_group]["lr"]
        self.trainer.storage.put_all({"lr": rate}, smoothing_hint=False)
        self._step_scheduler()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's; a function of the share of the training keeps nothing."""
        keeps = hasattr(self.scheduler, "step")
        return dict(self.scheduler.state_dict()) if keeps else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if hasattr(self.scheduler, "step"):
            self.scheduler.load_state_dict(state_dict)

    @staticmethod
    def get_best_param_group_id(optimizer: Optimizer) -> int:
        """Index of the parameter group whose learning rate is put."""
        return shown_group(optimizer)


def multiplied(
    optimizer: Optimizer, multiplier: Callable[[float], float], iteration: int, max_iter: int
) -> LambdaLR:
    """A scheduler that multiplies the groups' first rates by `multiplier(i / max_iter)`.

    Args:
        iteration: the one that runs next.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return LambdaLR(optimizer, lambda i: multiplier(i / max_iter), last_epoch=iteration - 1)


def shown_group(optimizer: Optimizer) -> int:
    """Index of the parameter group whose learning rate stands for the optimizer's."""
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if max(sizes) > 1:
        return sizes.index(max(sizes))
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return rates.index(Counter(rates).most_common(1)[0][0])
