"""ParamSchedulerHook: step the schedulers of learning rate, momentum and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fasttrain.optim import _ParamScheduler
from fasttrain.registry import HOOKS

from .hook import DATA_BATCH, Hook

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class ParamSchedulerHook(Hook):
    """Steps by-iteration schedulers after each iteration, by-epoch ones after each epoch.

    A scheduler that needs the metrics (ReduceOnPlateau) counts epochs the same way, for its `begin`
    and `end`, and judges the metrics after each validation.
    """

    priority = "LOW"

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        for scheduler in schedulers_of(runner):
            if not scheduler.by_epoch:
                scheduler.step()

    def after_train_epoch(self, runner: Runner) -> None:
        for scheduler in schedulers_of(runner):
            if scheduler.by_epoch:
                scheduler.step()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if metrics is None:
            return
        for scheduler in schedulers_of(runner):
            if scheduler.by_epoch and _needs_metrics(scheduler):
                scheduler.step(metrics)


def _needs_metrics(scheduler: Any) -> bool:
    return isinstance(scheduler, _ParamScheduler) and getattr(scheduler, "need_val_args", False)


def schedulers_of(runner: Runner) -> list[Any]:
    """All schedulers of a runner in one list."""
    schedulers = runner.param_schedulers
    if isinstance(schedulers, list):
        return schedulers
    if schedulers is None:
        return []
    if isinstance(schedulers, dict):
        # A config that is not built yet (validation alone) has nothing to step.
        if not all(isinstance(value, list) for value in schedulers.values()):
            assert "type" in schedulers, (
                f"each value of runner.param_schedulers should be a list, got {schedulers}"
            )
            return []
        return [scheduler for group in schedulers.values() for scheduler in group]
    raise TypeError(
        "runner.param_schedulers should be list of ParamScheduler or a dict containing list of "
        f"ParamScheduler, but got {schedulers}"
    )
