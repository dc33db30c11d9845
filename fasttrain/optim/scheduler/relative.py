"""Schedulers that move the current value, so that several of them chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fasttrain.core import schedule
from fasttrain.registry import PARAM_SCHEDULERS

from .base import INF, EpochConvertible, EpochSpan, OptimizerType


def floors_of(
    base_values: Sequence[float], eta_min: float | None, eta_min_ratio: float | None
) -> list[float]:
    """The lowest value of each group: `eta_min`, or a share of the group's base value."""
    if eta_min_ratio is None:
        assert eta_min is not None
        return [eta_min] * len(base_values)
    return [base * eta_min_ratio for base in base_values]


@PARAM_SCHEDULERS.register_module()
class StepParamScheduler(EpochConvertible):
    """Multiplies by `gamma` every `step_size` steps."""

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        step_size: int,
        gamma: float = 0.1,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if step_size < 1:
            raise ValueError(f"step_size must be >= 1, got {step_size}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    @classmethod
    def build_iter_from_epoch(  # type: ignore[override]
        cls,
        *args: Any,
        step_size: int,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build an iteration-based scheduler; `step_size`, `begin` and `end` count epochs."""
        span = EpochSpan(begin, end, by_epoch, epoch_length)
        return span.build(cls, *args, step_size=span.iters(step_size), **kwargs)

    def _get_value(self) -> list[Any]:
        return self._times(schedule.step_ratio(self.last_step, self.step_size, self.gamma))


@PARAM_SCHEDULERS.register_module()
class MultiStepParamScheduler(EpochConvertible):
    """Multiplies by `gamma` at each milestone; one listed twice counts twice."""

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_step: int = -1,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    @classmethod
    def build_iter_from_epoch(  # type: ignore[override]
        cls,
        *args: Any,
        milestones: Sequence[int],
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build an iteration-based scheduler; `milestones`, `begin` and `end` count epochs."""
        span = EpochSpan(begin, end, by_epoch, epoch_length)
        return span.build(
            cls, *args, milestones=[span.iters(epoch) for epoch in milestones], **kwargs
        )

    def _get_value(self) -> list[Any]:
        return self._times(schedule.multi_step_ratio(self.last_step, self.milestones, self.gamma))


@PARAM_SCHEDULERS.register_module()
class ConstantParamScheduler(EpochConvertible):
    """Multiplies by `factor` until the last step, where the factor is taken back."""

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        factor: float = 1.0 / 3,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not 0 <= factor <= 1:
            raise ValueError("Constant multiplicative factor should between 0 and 1.")
        self.factor = factor
        self.total_iters = end - begin - 1
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    def _get_value(self) -> list[Any]:
        return self._shaped(schedule.constant_shape, self.total_iters, self.factor)


@PARAM_SCHEDULERS.register_module()
class ExponentialParamScheduler(EpochConvertible):
    """Multiplies by `gamma` at every step."""

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        gamma: float,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        self.gamma = gamma
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    def _get_value(self) -> list[Any]:
        return self._times(schedule.exponential_ratio(self.last_step, self.gamma))


@PARAM_SCHEDULERS.register_module()
class CosineAnnealingParamScheduler(EpochConvertible):
    """Falls along half a cosine to `eta_min` over `T_max` steps, then rises again (SGDR).

    `T_max` defaults to `end - begin`; the floor is `eta_min` (default 0), or with
    `eta_min_ratio` that share of each group's base value.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        T_max: int | None = None,
        eta_min: float | None = None,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        eta_min_ratio: float | None = None,
    ) -> None:
        assert eta_min is None or eta_min_ratio is None, (
            "Either `eta_min` or `eta_min_ratio should be specified"
        )
        self.T_max = T_max or (end - begin)
        self.eta_min = 0.0 if eta_min is None and eta_min_ratio is None else eta_min
        self.eta_min_ratio = eta_min_ratio
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        T_max: int | None = None,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build an iteration-based scheduler; `T_max`, `begin` and `end` count epochs."""
        span = EpochSpan(begin, end, by_epoch, epoch_length)
        return span.build(cls, *args, T_max=T_max and span.iters(T_max), **kwargs)

    def _get_value(self) -> list[Any]:
        floors = floors_of(self.base_values, self.eta_min, self.eta_min_ratio)
        return self._shaped(schedule.cosine_shape, self.T_max, floors=floors)


@PARAM_SCHEDULERS.register_module()
class LinearParamScheduler(EpochConvertible):
    """Goes from `start_factor` to `end_factor` of the value in a straight line."""

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        for name, factor in (("Starting", start_factor), ("Ending", end_factor)):
            if not 0 <= factor <= 1:
                raise ValueError(f"{name} multiplicative factor should between 0 and 1.")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = end - begin - 1
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    def _get_value(self) -> list[Any]:
        return self._shaped(
            schedule.linear_shape, self.total_iters, self.start_factor, self.end_factor
        )


@PARAM_SCHEDULERS.register_module()
class PolyParamScheduler(EpochConvertible):
    """Falls to `eta_min` as (1 - step / steps) ** `power`."""

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        eta_min: float = 0,
        power: float = 1.0,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        self.eta_min = eta_min
        self.power = power
        self.total_iters = end - begin - 1
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    def _get_value(self) -> list[Any]:
        floors = floors_of(self.base_values, self.eta_min, None)
        return self._shaped(schedule.poly_shape, self.total_iters, self.power, floors=floors)
