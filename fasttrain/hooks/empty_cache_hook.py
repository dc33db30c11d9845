"""EmptyCacheHook: give cached device memory back at chosen points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.cuda import is_available as is_cuda_available

from fasttrain.registry import HOOKS

from .hook import DATA_BATCH, Hook

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class EmptyCacheHook(Hook):
    """Empties torch's CUDA cache before or after epochs, or after iterations.

    Args:
        before_epoch: before each epoch.
        after_epoch: after each epoch.
        after_iter: after each iteration; slow, since freed memory must be allocated again.
    """

    priority = "NORMAL"

    def __init__(
        self, before_epoch: bool = False, after_epoch: bool = True, after_iter: bool = False
    ) -> None:
        self._do_before_epoch = before_epoch
        self._do_after_epoch = after_epoch
        self._do_after_iter = after_iter

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        if self._do_before_epoch:
            _empty_cache()

    def _after_epoch(self, runner: Runner, mode: str = "train") -> None:
        if self._do_after_epoch:
            _empty_cache()

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence | dict | None = None,
        mode: str = "train",
    ) -> None:
        if self._do_after_iter:
            _empty_cache()


def _empty_cache() -> None:
    if is_cuda_available():
        torch.cuda.empty_cache()
