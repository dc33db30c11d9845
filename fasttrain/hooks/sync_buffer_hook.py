"""SyncBuffersHook: give all ranks the same buffers (such as BatchNorm's statistics)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fasttrain.dist import all_reduce_params, is_distributed
from fasttrain.registry import HOOKS

from .hook import Hook

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Averages the model's buffers over ranks before each validation, or else after each epoch."""

    priority = "NORMAL"

    def __init__(self) -> None:
        self.distributed = is_distributed()
        # Whether the running epoch's buffers were averaged already, before its validation.
        self.called_in_train = False

    def before_val_epoch(self, runner: Runner) -> None:
        if self.distributed:
            if not self.called_in_train:
                all_reduce_params(list(runner.model.buffers()), op="mean")
            self.called_in_train = False

    def after_train_epoch(self, runner: Runner) -> None:
        if self.distributed:
            all_reduce_params(list(runner.model.buffers()), op="mean")
            self.called_in_train = True
