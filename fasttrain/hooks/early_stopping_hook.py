"""Stop training once a validation metric no longer improves."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from fasttrain.hooks.hook import Hook
from fasttrain.hooks.score_rules import GREATER_KEYS, LESS_KEYS, RULES, infer_rule
from fasttrain.registry import HOOKS

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class EarlyStoppingHook(Hook):
    """Ends the train loop when the monitored metric stalls, passes a threshold or is not finite.

    Args:
        monitor: name of the metric.
        rule: 'greater' or 'less'; None infers it from the name.
        min_delta: by how much at least a score must beat the best one to count.
        strict: a metric that is missing is an error instead of a warning.
        check_finite: stop at a score that is NaN or infinite.
        patience: number of validations without improvement after which training stops.
        stopping_threshold: stop at once when the score is better than this.
    """

    priority = "LOWEST"
    rule_map = RULES
    _default_greater_keys = GREATER_KEYS
    _default_less_keys = LESS_KEYS

    def __init__(
        self,
        monitor: str,
        rule: str | None = None,
        min_delta: float = 0.1,
        strict: bool = False,
        check_finite: bool = True,
        patience: int = 5,
        stopping_threshold: float | None = None,
    ) -> None:
        self.monitor = monitor
        self.rule = self._init_rule(monitor) if rule is None else rule
        if self.rule not in self.rule_map:
            raise ValueError(f'`rule` should be either "greater" or "less", but got {rule}')
        self.min_delta = min_delta if self.rule == "greater" else -1 * min_delta
        self.strict = strict
        self.check_finite = check_finite
        self.patience = patience
        self.stopping_threshold = stopping_threshold
        self.wait_count = 0
        self.best_score = -math.inf if self.rule == "greater" else math.inf

    def _init_rule(self, monitor: str) -> str:
        """The rule that the metric's name tells."""
        rule = infer_rule(monitor, self._default_greater_keys, self._default_less_keys)
        if rule is None:
            raise ValueError(f"Cannot infer the rule for {monitor}, thus rule must be specified.")
        return rule

    def _check_stop_condition(self, current_score: float) -> tuple[bool, str]:
        """Whether to stop, and why."""
        better = self.rule_map[self.rule]
        if self.check_finite and not math.isfinite(current_score):
            return True, (
                f"Monitored metric {self.monitor} = {current_score} is infinite. "
                f"Previous best value was {self.best_score:.3f}."
            )
        if self.stopping_threshold is not None and better(current_score, self.stopping_threshold):
            self.best_score = current_score
            return True, (
                f"Stopping threshold reached: `{self.monitor}` = {current_score} is "
                f"{self.rule} than {self.stopping_threshold}."
            )
        stalled = better(self.best_score + self.min_delta, current_score)
        if not stalled and not math.isnan(current_score):
            self.best_score = current_score
            self.wait_count = 0
            return False, ""
        self.wait_count += 1
        if self.wait_count < self.patience:
            return False, ""
        return True, (
            f"the monitored metric did not improve in the last {self.wait_count} records. "
            f"best score: {self.best_score:.3f}. "
        )

    def before_run(self, runner: Runner) -> None:
        """Check that the train loop can be stopped."""
        assert hasattr(runner.train_loop, "stop_training"), (
            "`train_loop` should contain `stop_training` variable."
        )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Judge the newest score."""
        metrics = metrics or {}
        if self.monitor not in metrics:
            if self.strict:
                raise RuntimeError(
                    f"Early stopping conditioned on metric `{self.monitor} is not available. "
                    f"Please check available metrics {metrics}, or set `strict=False` in "
                    "`EarlyStoppingHook`."
                )
            warnings.warn(
                "Skip early stopping process since the evaluation results "
                f"({metrics.keys()}) do not include `monitor` ({self.monitor}).",
                stacklevel=2,
            )
            return
        should_stop, message = self._check_stop_condition(metrics[self.monitor])
        if should_stop:
            runner.train_loop.stop_training = True
            runner.logger.info(message)
