"""DistSamplerSeedHook: let the sampler shuffle anew in each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fasttrain.core.batches import set_sampler_epoch
from fasttrain.registry import HOOKS

from .hook import Hook

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class DistSamplerSeedHook(Hook):
    """Tells the training sampler the epoch before each epoch, when it wants to know."""

    priority = "NORMAL"

    def before_train_epoch(self, runner: Runner) -> None:
        set_sampler_epoch(runner.train_loop.dataloader, runner.epoch)
