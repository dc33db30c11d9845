"""The scheduler that reduces a value when a metric stops improving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fasttrain.core import schedule
from fasttrain.logging import print_log
from fasttrain.registry import PARAM_SCHEDULERS

from .base import INF, OptimizerType, _ParamScheduler


@PARAM_SCHEDULERS.register_module()
class ReduceOnPlateauParamScheduler(_ParamScheduler):
    """Multiplies by `factor` after more than `patience` epochs without improvement.

    `step()` without metrics counts an epoch (for `begin` and `end`); `step(metrics)` judges.

    Args:
        monitor: key of the metric.
        rule: `"less"` or `"greater"`, which is better.
        factor: below 1.
        patience: epochs without improvement that are borne.
        threshold: an improvement must exceed it.
        threshold_rule: `"rel"`, a share of the best value, or `"abs"`.
        cooldown: epochs after a reduction during which nothing counts as bad.
        min_value: lowest value, for all groups or one for each.
        eps: a smaller reduction is left out.
    """

    need_val_args: bool = True

    best: float
    cooldown_counter: int
    num_bad_epochs: int

    def __init__(
        self,
        optimizer: OptimizerType,
        param_name: str,
        monitor: str = "loss",
        rule: str = "less",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_rule: str = "rel",
        cooldown: int = 0,
        min_value: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        assert by_epoch, f"Now {type(self).__name__} only support by_epoch=True"
        self.factor = factor
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.monitor = monitor
        self._init_is_better(rule, threshold, threshold_rule)
        self._reset()
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)
        num_groups = len(self.optimizer.param_groups)
        if not isinstance(min_value, list | tuple):
            min_value = [min_value] * num_groups  # type: ignore[list-item]
        elif len(min_value) != num_groups:
            raise ValueError(f"expected {num_groups} min_lrs, got {len(min_value)}")
        self.min_values = list(min_value)

    def _start(self, base_values: list[Any]) -> None:
        """Wait for the first metrics; nothing is computed from base values here."""
        self._global_step = 0
        self._last_value = self._values()

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Count an epoch, or judge the metrics of one.

        Raises:
            TypeError: `metrics` is no dict.
            KeyError: the monitored metric is not there.
        """
        if metrics is None:
            self._global_step += 1
            self._last_value = self._values()
            return
        if not isinstance(metrics, Mapping):
            raise TypeError(f"metrics type should be dict, but got type {type(metrics)}")
        if self.begin <= self._global_step < self.end:
            self.last_step += 1
            if metrics.get(self.monitor) is None:
                raise KeyError(
                    f"Excepted key in {list(metrics)}, but got key {self.monitor} is not in dict"
                )
            self._judge(metrics[self.monitor])
        self._last_value = self._values()

    def _judge(self, value: Any) -> None:
        if torch.is_tensor(value):
            value = value.item()  # sync point: once per validation
        if self._is_better(value, self.best):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self._in_cooldown():
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        for index, (group, value) in enumerate(zip(groups, self._get_value(), strict=True)):
            if group[self.param_name] - value > self.eps:
                self._set(group, value)
                self.print_value(self.verbose, index, value)

    def print_value(self, is_verbose: bool, group: int, value: float) -> None:
        """Log a new value, when verbose."""
        if is_verbose:
            print_log(
                f"Adjusting parameter value of group {group} to {value:.4e} "
                f"in epoch {self.last_step}.",
                logger="current",
            )

    def _get_value(self) -> list[Any]:
        reduced = self._times(self.factor)
        return [max(pair) for pair in zip(reduced, self.min_values, strict=True)]

    def _in_cooldown(self) -> bool:
        return self.cooldown_counter > 0

    def _is_better(self, a: float, best: float) -> bool:
        return schedule.is_better(
            a, best, rule=self.rule, threshold=self.threshold, relative=self.threshold_rule == "rel"
        )

    def _init_is_better(self, rule: str, threshold: float, threshold_rule: str) -> None:
        if rule not in ("less", "greater"):
            raise ValueError(f"mode {rule} is unknown!")
        if threshold_rule not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_rule} is unknown!")
        self.rule_worse = INF if rule == "less" else -INF
        self.rule = rule
        self.threshold = threshold
        self.threshold_rule = threshold_rule

    def _reset(self) -> None:
        """Forget the best value and all counts."""
        self.best = self.rule_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
