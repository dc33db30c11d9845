"""Checkpoints by the clock, and the best one by a metric."""

from __future__ import annotations

import logging
import math
import operator
import os
from functools import partial
from pathlib import Path
from typing import Any

from fasttrain.core.checkpoint import FolderLock, Retention, remove_leftovers
from fasttrain.engine.checkpointer import SUFFIX, Checkpointer
from fasttrain.engine.trainer_base import HookBase

logger = logging.getLogger("fasttrain.engine.hooks")


def end_background(checkpointer: Checkpointer) -> None:
    """Wait for the files that are being written; further saves wait by themselves.

    Raises:
        CheckpointError: a file could not be written.
    """
    checkpointer.in_background = False
    checkpointer.drain()


class PeriodicCheckpointer(HookBase):
    """Saves every `period` iterations and at the last one, as `{file_prefix}_final`.

    Files are called `{prefix}_{iteration:07d}`, and with `iters_per_epoch`
    `{prefix}_Epoch_{epoch:05d}_Iter_{iteration:07d}`. The final file is never deleted.

    Args:
        checkpointer: what saves.
        period: iterations.
        max_iter: the trainer's when None.
        max_to_keep: newest periodic files to keep; all when None.
        file_prefix: start of the files' names.
        iters_per_epoch: names files by epoch too.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        period: int,
        max_iter: int | None = None,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
        *,
        iters_per_epoch: int | None = None,
    ) -> None:
        if period < 1:
            raise ValueError(f"period must be >= 1, got {period}")
        if max_to_keep is not None and max_to_keep < 1:
            raise ValueError(f"max_to_keep must be >= 1 or None, got {max_to_keep}")
        self.checkpointer = checkpointer
        self.period = period
        self.max_iter = max_iter
        self.max_to_keep = max_to_keep
        self.file_prefix = file_prefix
        self.iters_per_epoch = iters_per_epoch
        self._retention = Retention(max_to_keep or 0)
        self._lock: FolderLock | None = None

    def before_train(self) -> None:
        """Take the folder for this process alone, and clear what killed processes left there."""
        self.max_iter = self.trainer.max_iter
        self.checkpointer.in_background = True
        if self.checkpointer.save_dir and self.checkpointer.save_to_disk:
            self._lock = FolderLock(self.checkpointer.save_dir)
            for path in remove_leftovers(self.checkpointer.save_dir):
                logger.warning("Removed %s, left by a save that was killed", path)

    def after_step(self) -> None:
        self.step(self.trainer.iter)

    def step(self, iteration: int, epoch: int | None = None, **kwargs: Any) -> None:
        """Save if due.

        Args:
            iteration: the iteration just done, from 0.
            epoch: named in the file; taken from `iters_per_epoch` when None.
            kwargs: further entries of the file.
        """
        done, kwargs = iteration + 1, {**kwargs, "iteration": iteration}
        if done % self.period == 0:
            name = self._name(iteration, epoch)
            surplus = self._retention.add(name)  # before the save: the file knows of itself
            self.save(name, **kwargs)
            if surplus:
                self.checkpointer.when_saved(partial(self._remove, surplus))
        if self.max_iter is not None and done >= self.max_iter:
            self.save(f"{self.file_prefix}_final", **kwargs)

    def after_train(self) -> None:
        """Wait for the last file; an error of it is raised here."""
        try:
            end_background(self.checkpointer)
        finally:
            if self._lock is not None:
                self._lock.release()

    def _remove(self, names: list[str]) -> None:
        for name in names:
            Path(self.checkpointer.save_dir, f"{name}{SUFFIX}").unlink(missing_ok=True)

    def _name(self, iteration: int, epoch: int | None) -> str:
        if epoch is None and self.iters_per_epoch:
            epoch = (iteration + 1) // self.iters_per_epoch
        if epoch is None:
            return f"{self.file_prefix}_{iteration:07d}"
        return f"{self.file_prefix}_Epoch_{epoch:05d}_Iter_{iteration:07d}"

    def save(self, name: str, **kwargs: Any) -> None:
        """Save now, outside the schedule; arguments as those of `Checkpointer.save`."""
        self.checkpointer.save(name, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": list(self._retention.kept)} if self.max_to_keep else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = self.checkpointer.save_dir
        kept = [name for name in state_dict["kept"] if os.path.exists(f"{folder}/{name}{SUFFIX}")]
        self._retention = Retention(self.max_to_keep or 0, kept)


class BestCheckpointer(HookBase):
    """Saves `{file_prefix}` whenever a metric is better than ever before.

    Register it after the EvalHook that puts the metric.

    Args:
        eval_period: iterations between evaluations.
        checkpointer: what saves.
        val_metric: name of the metric in the storage.
        mode: `"max"` or `"min"`.
        file_prefix: the file's name.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f'mode must be "max" or "min", got {mode!r}')
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def before_train(self) -> None:
        self._checkpointer.in_background = True

    def after_step(self) -> None:
        after = self.trainer.iter + 1
        if self._period > 0 and after % self._period == 0 and after != self.trainer.max_iter:
            self._check()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._check()
        end_background(self._checkpointer)

    def _check(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            known = sorted(self.trainer.storage.latest())
            logger.warning(
                "Given val metric %s does not seem to be computed/stored; there are %s. "
                "No best checkpoint is saved.",
                self._val_metric,
                known,
            )
            return
        value, iteration = latest
        if iteration == self.best_iter or not math.isfinite(value):
            return
        if self.best_metric is None or self._is_better(value, self.best_metric):
            self.best_metric, self.best_iter = value, iteration
            self._checkpointer.save(self._file_prefix, iteration=iteration)
            logger.info(
                "Saved best model as %s: %s = %.5f at iteration %d",
                self._file_prefix,
                self._val_metric,
                value,
                iteration,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_metric = state_dict["best_metric"]
        self.best_iter = state_dict["best_iter"]
