"""Hooks that touch the model: weights bound at the start, scheduled sampling by the epoch."""

from __future__ import annotations

from typing import Any

from fasttrain.engine.model_modes import unwrap
from fasttrain.engine.trainer_base import HookBase


class ModelWeightsManipulating(HookBase):
    """Calls the model's `bind_or_init_weights()`, if it has one, before training.

    So that its average has the same parameters, the average's is called too.
    """

    def before_train(self) -> None:
        average = getattr(self.trainer, "ema", None)
        models: list[Any] = [unwrap(self.trainer.model)]  # type: ignore[attr-defined]
        models += [] if average is None else [average.module]
        for model in models:
            if hasattr(model, "bind_or_init_weights"):
                model.bind_or_init_weights()


class ScheduledSampling(HookBase):
    """Sets the trainer's `ss_prob`: the share of tokens taken from the model, growing by epoch.

    From `start_epoch` on it is `inc_prob` for every `inc_every_epoch` epochs begun, up to
    `max_prob` (Bengio et al. 2015, section 2.4, as steps). It is a function of the iteration, so
    that the first step after resuming has it right.

    Args:
        start_epoch: first epoch with sampling; negative for none at all.
        inc_every_epoch: epochs between two increases.
        inc_prob: the increase.
        max_prob: the upper bound.
        iters_per_epoch: to tell the epoch.
    """

    def __init__(
        self,
        start_epoch: int,
        inc_every_epoch: int,
        inc_prob: float,
        max_prob: float,
        iters_per_epoch: int,
    ) -> None:
        if inc_every_epoch < 1:
            raise ValueError(f"inc_every_epoch must be >= 1, got {inc_every_epoch}")
        self._start_epoch = start_epoch
        self._inc_every_epoch = inc_every_epoch
        self._inc_prob = inc_prob
        self._max_prob = max_prob
        self._iters_per_epoch = iters_per_epoch

    def probability(self, iteration: int) -> float:
        """The probability at an iteration."""
        epoch = iteration // self._iters_per_epoch
        if self._start_epoch < 0 or epoch < self._start_epoch:
            return 0.0
        increases = (epoch - self._start_epoch) // self._inc_every_epoch
        return min(self._inc_prob * increases, self._max_prob)

    def before_step(self) -> None:
        self.trainer.ss_prob = self.probability(self.trainer.iter)  # type: ignore[attr-defined]
