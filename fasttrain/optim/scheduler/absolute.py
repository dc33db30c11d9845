"""Schedulers that set values of their own: one cycle, and cosine restarts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from fasttrain.core import schedule
from fasttrain.registry import PARAM_SCHEDULERS

from .base import INF, EpochConvertible, EpochSpan, OptimizerType
from .relative import floors_of

_EASE = {"cos": schedule.ease_cosine, "linear": schedule.ease_linear}


@PARAM_SCHEDULERS.register_module()
class OneCycleParamScheduler(EpochConvertible):
    """Rises to `eta_max` and falls far below the start, in one cycle (Smith and Topin, 2018).

    Args:
        eta_max: the peak, for all groups or one for each.
        total_steps: length of the cycle; `end - begin` when None.
        pct_start: share of the cycle that rises.
        anneal_strategy: `"cos"` or `"linear"`.
        div_factor: the start is `eta_max / div_factor`.
        final_div_factor: the end is the start over this.
        three_phase: fall back symmetrically first, then to the end.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        eta_max: float | Sequence[float] = 0,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if total_steps is None:
            total_steps = end - begin
        elif not isinstance(total_steps, int) or total_steps <= 0:
            raise ValueError(f"Expected positive integer total_steps, but got {total_steps}")
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in _EASE:
            raise ValueError(
                f'anneal_strategy must by one of "cos" or "linear", instead got {anneal_strategy}'
            )
        self.eta_max = eta_max
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self._schedule_phases = self._phases(param_name, pct_start, three_phase)

        peaks = self._format_param(f"max_{param_name}", optimizer, eta_max)
        if last_step == -1:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                start = peak / div_factor
                group[f"initial_{param_name}"] = start
                group[f"max_{param_name}"] = peak
                group[f"min_{param_name}"] = start / final_div_factor
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    def _phases(self, name: str, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
        start, peak, floor = f"initial_{name}", f"max_{name}", f"min_{name}"
        rise = float(pct_start * self.total_steps)
        phases = [(rise - 1, start, peak)]
        if three_phase:
            phases += [(2 * rise - 2, peak, start), (self.total_steps - 1, start, floor)]
        else:
            phases += [(self.total_steps - 1, peak, floor)]
        keys = ("end_step", f"start_{name}", f"end_{name}")
        return [dict(zip(keys, phase, strict=True)) for phase in phases]

    def _format_param(self, name: str, optimizer: OptimizerType, param: Any) -> list[float]:
        """One value for each parameter group."""
        num_groups = len(optimizer.param_groups)
        if not isinstance(param, list | tuple):
            return [param] * num_groups
        if len(param) != num_groups:
            raise ValueError(f"expected {num_groups} values for {name}, got {len(param)}")
        return list(param)

    @staticmethod
    def _annealing_cos(start: float, end: float, pct: float) -> float:
        return schedule.ease_cosine(start, end, pct)

    @staticmethod
    def _annealing_linear(start: float, end: float, pct: float) -> float:
        return schedule.ease_linear(start, end, pct)

    @property
    def anneal_func(self) -> Callable[[float, float, float], float]:
        """How a phase goes from its start to its end."""
        return _EASE[self.anneal_strategy]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Other writers of this layout put the function itself into the state.
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "anneal_func"})

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        total_steps: int | None = None,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build an iteration-based scheduler; `total_steps`, `begin` and `end` count epochs."""
        span = EpochSpan(begin, end, by_epoch, epoch_length)
        return span.build(cls, *args, total_steps=total_steps and span.iters(total_steps), **kwargs)

    def _get_value(self) -> list[float]:
        if self.last_step > self.total_steps:
            raise ValueError(
                f"Tried to step {self.last_step + 1} times. The specified number of total steps "
                f"is {self.total_steps}"
            )
        ends = [phase["end_step"] for phase in self._schedule_phases]
        index, share = schedule.phase_at(self.last_step, ends)
        phase = self._schedule_phases[index]
        start, end = phase[f"start_{self.param_name}"], phase[f"end_{self.param_name}"]
        ease = self.anneal_func
        return [ease(group[start], group[end], share) for group in self.optimizer.param_groups]


@PARAM_SCHEDULERS.register_module()
class CosineRestartParamScheduler(EpochConvertible):
    """Half a cosine per period, each starting anew from its weight of the base value.

    Args:
        periods: length of each period.
        restart_weights: share of the base value at which each period starts.
        eta_min: the lowest value; or give
        eta_min_ratio: the lowest value as a share of the base value.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        periods: list[int],
        restart_weights: Sequence[float] = (1,),
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        assert (eta_min is None) ^ (eta_min_ratio is None), (
            "exactly one of eta_min and eta_min_ratio should be given, "
            f"but got {eta_min} and {eta_min_ratio}"
        )
        assert len(periods) == len(restart_weights), (
            "periods and restart_weights should have the same length."
        )
        self.periods = periods
        self.eta_min = eta_min
        self.eta_min_ratio = eta_min_ratio
        self.restart_weights = restart_weights
        self.cumulative_periods = list(accumulate(periods))
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    @staticmethod
    def get_position_from_periods(iteration: int, cumulative_periods: list[int]) -> int | None:
        """Index of the period that `iteration` lies in, None past the last one."""
        return schedule.period_at(iteration, cumulative_periods)

    @classmethod
    def build_iter_from_epoch(  # type: ignore[override]
        cls,
        *args: Any,
        periods: list[int],
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build an iteration-based scheduler; `periods`, `begin` and `end` count epochs."""
        span = EpochSpan(begin, end, by_epoch, epoch_length)
        return span.build(cls, *args, periods=[span.iters(period) for period in periods], **kwargs)

    def _get_value(self) -> list[Any]:
        index = self.get_position_from_periods(self.last_step, self.cumulative_periods)
        if index is None:
            return self._values()
        start = self.cumulative_periods[index] - self.periods[index]
        if self.last_step == start:
            return [base * self.restart_weights[index] for base in self.base_values]
        floors = floors_of(self.base_values, self.eta_min, self.eta_min_ratio)
        return self._shaped(schedule.cosine_shape, self.periods[index], floors=floors, start=start)
