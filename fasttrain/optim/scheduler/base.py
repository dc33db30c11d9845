"""The base of all schedulers: when to act on an optimizer's groups, and what is remembered."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from fasttrain.core import schedule
from fasttrain.logging import print_log

from ..optimizer.base import BaseOptimWrapper

INF = int(1e9)

OptimizerType = BaseOptimWrapper | Optimizer

_SEE = "See more details at https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate"


class _CountedStep:
    """The `step` of one optimizer, counting its calls in `optimizer._global_step`.

    A copy of the optimizer gets one of its own.
    """

    _with_counter = True

    def __init__(self, optimizer: Any, function: Callable[..., Any], bound: bool) -> None:
        update_wrapper(self, function)
        self._optimizer = weakref.ref(optimizer)  # a plain reference would be a cycle
        self._function = function
        self._bound = bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        instance: Any = self._optimizer()
        instance._global_step += 1
        if self._bound:
            return self._function(instance, *args, **kwargs)
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._optimizer(), self._function, self._bound)


def _count_steps(optimizer: Any) -> None:
    """Make `optimizer.step` count its calls in `optimizer._global_step`, once."""
    step = optimizer.step
    if getattr(step, "_with_counter", False):
        return
    bound = getattr(step, "__self__", None) is optimizer
    optimizer.step = _CountedStep(optimizer, step.__func__ if bound else step, bound)


class _ParamScheduler:
    """Sets one entry of every parameter group, step by step.

    Subclasses give `_get_value`, the list of new values at `self.last_step`.

    Args:
        optimizer: whose `param_groups` are changed.
        param_name: the entry, such as `"lr"`.
        begin: first step (inclusive) at which the scheduler acts.
        end: last step (exclusive).
        last_step: the step to go on from; -1 starts anew.
        by_epoch: whether a step is an epoch; only noted, for who calls `step`.
        verbose: log every new value.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not isinstance(optimizer, Optimizer | BaseOptimWrapper):
            raise TypeError(
                f"``optimizer`` should be an Optimizer,but got {type(optimizer).__name__}"
            )
        if end <= begin:
            raise ValueError(f"end should be larger than begin, but got begin={begin}, end={end}")
        assert isinstance(last_step, int) and last_step >= -1, (
            f"last_step should be an int >= -1, but got {last_step!r}"
        )
        self.optimizer = optimizer
        self.param_name = param_name
        self.begin = begin
        self.end = end
        self.by_epoch = by_epoch
        self.verbose = verbose
        self.last_step = last_step
        self._last_value: list[Any] = []
        self._start(self._initial_values(last_step))

    def _start(self, base_values: list[Any]) -> None:
        """Take the first step."""
        self.base_values = base_values
        _count_steps(self.optimizer)
        self.optimizer._global_step = -1  # type: ignore[union-attr]
        self._global_step = -1
        self.step()

    def _initial_values(self, last_step: int) -> list[Any]:
        initial = f"initial_{self.param_name}"
        for index, group in enumerate(self.optimizer.param_groups):
            if last_step == -1:
                value = group[self.param_name]
                group.setdefault(initial, value.clone() if isinstance(value, Tensor) else value)
            elif initial not in group:
                raise KeyError(
                    f"param '{initial}' is not specified in param_groups[{index}] "
                    "when resuming an optimizer"
                )
        return [group[initial] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)

    def get_last_value(self) -> list[Any]:
        """The values set last, one for each group."""
        return self._last_value

    def _get_value(self) -> Sequence[Any]:
        raise NotImplementedError

    def print_value(self, is_verbose: bool, group: int, value: float) -> None:
        """Log a new value, when verbose."""
        if is_verbose:
            print_log(
                f"Adjusting parameter value of group {group} to {value:.4e}.", logger="current"
            )

    def step(self) -> None:
        """Go one step on; within `[begin, end)`, set the new values."""
        if self._global_step == 0:
            self._check_order()
        self._global_step += 1
        if self.begin <= self._global_step < self.end:
            self.last_step += 1
            values = self._get_value()
            for group, value in zip(self.optimizer.param_groups, values, strict=False):
                if group[self.param_name] is not value:
                    self._set(group, value)
            if self.verbose:
                for index, value in enumerate(values):
                    self.print_value(True, index, value)
        self._last_value = self._values()

    def _set(self, group: dict[str, Any], value: Any) -> None:
        current = group[self.param_name]
        if isinstance(current, Tensor):
            current.fill_(value)
        else:
            group[self.param_name] = value

    def _check_order(self) -> None:
        if not hasattr(self.optimizer.step, "_with_counter"):
            warnings.warn(
                "Seems like `optimizer.step()` has been overridden after parameter value "
                "scheduler initialization. Please, make sure to call `optimizer.step()` before "
                f"`scheduler.step()`. {_SEE}",
                stacklevel=3,
            )
        elif self.optimizer._global_step < 0:  # type: ignore[union-attr]
            warnings.warn(
                "Detected call of `scheduler.step()` before `optimizer.step()`, which skips the "
                "first value of the schedule. Call them in the opposite order: "
                f"`optimizer.step()` before `scheduler.step()`. {_SEE}",
                stacklevel=3,
            )

    def _values(self) -> list[Any]:
        name = self.param_name
        return [group[name] for group in self.optimizer.param_groups]

    def _times(self, ratio: float) -> list[Any]:
        """The current values times `ratio`."""
        return [value * ratio for value in self._values()]

    def _shaped(
        self,
        shape: Callable[..., float],
        *args: Any,
        floors: Sequence[float] | None = None,
        start: int = 0,
    ) -> list[Any]:
        """The current values, moved as `shape(step - start, *args)` moved since the last step."""
        step = self.last_step - start
        now = shape(step, *args)
        before = shape(step - 1, *args) if step > 0 else 1.0
        return schedule.chain(self._values(), self.base_values, floors, before, now)


class EpochSpan:
    """Converts counts of epochs to counts of iterations.

    Args:
        begin, end, by_epoch: as of a scheduler described in epochs.
        epoch_length: iterations per epoch.
    """

    def __init__(self, begin: int, end: int, by_epoch: bool, epoch_length: int | None) -> None:
        assert by_epoch, (
            "Only epoch-based kwargs whose `by_epoch=True` can be converted to iter-based."
        )
        assert epoch_length is not None and epoch_length > 0, (
            f"`epoch_length` must be a positive integer, but got {epoch_length}."
        )
        self.epoch_length = epoch_length
        self.arguments: dict[str, Any] = {
            "begin": int(begin * epoch_length),
            "end": end if end == INF else int(end * epoch_length),
            "by_epoch": False,
        }

    def iters(self, epochs: int) -> int:
        """The same span in iterations."""
        return epochs * self.epoch_length

    def build(self, scheduler_type: Any, *args: Any, **kwargs: Any) -> Any:
        """Build a scheduler from arguments in iterations, over this span."""
        return scheduler_type(*args, **kwargs, **self.arguments)


class EpochConvertible(_ParamScheduler):
    """A scheduler described in epochs that can be built to step once per iteration."""

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build an iteration-based scheduler from arguments counted in epochs.

        Args:
            args: the scheduler's positional arguments.
            begin, end: in epochs, as is every other argument that counts steps.
            by_epoch: must be True.
            epoch_length: iterations per epoch.
            kwargs: the scheduler's other arguments.
        """
        span = EpochSpan(begin, end, by_epoch, epoch_length)
        return span.build(cls, *args, **kwargs)
