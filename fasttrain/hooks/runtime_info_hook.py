"""RuntimeInfoHook: keeps the message hub up to date with progress, rates, losses and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fasttrain.hooks.hook import DATA_BATCH, Hook
from fasttrain.registry import HOOKS
from fasttrain.utils import get_git_hash
from fasttrain.version import MMENGINE_VERSION, __version__

if TYPE_CHECKING:
    from fasttrain.runner import Runner


def _is_scalar(value: Any) -> bool:
    """Whether `value` is one number: Python's, numpy's, or an array or tensor of one element."""
    if isinstance(value, np.ndarray):
        return value.size == 1
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, int | float | np.number)


@HOOKS.register_module()
class RuntimeInfoHook(Hook):
    """Writes to the message hub, never waiting for the device.

    | stage | what |
    |---|---|
    | before_run | notes `cfg`, `seed`, `experiment_name`, `fasttrain_version`, `mmengine_version` |
    | before_train | notes `loop_stage`, `epoch`, `iter`, their maxima, `dataset_meta` |
    | before_train_iter | note `iter`; scalars `train/lr` or `train/<name>.lr` |
    | after_train_iter | scalars `train/<key>` of the outputs |
    | after_val_epoch, after_test_epoch | metrics: scalars, or notes when they are no number |
    """

    priority = "VERY_HIGH"

    last_loop_stage: str | None = None

    def before_run(self, runner: Runner) -> None:
        """Note what is fixed for the run."""
        git_hash = get_git_hash()
        version = __version__ if git_hash == "unknown" else f"{__version__}+{git_hash[:7]}"
        runner.message_hub.update_info_dict(
            {
                "cfg": runner.cfg.pretty_text,
                "seed": runner.seed,
                "experiment_name": runner.experiment_name,
                "fasttrain_version": version,
                "mmengine_version": MMENGINE_VERSION + git_hash,
            }
        )

    def before_train(self, runner: Runner) -> None:
        """Note the progress, which is that of the checkpoint in a resumed run."""
        hub = runner.message_hub
        hub.update_info("loop_stage", "train")
        hub.update_info("epoch", runner.epoch)
        hub.update_info("iter", runner.iter)
        hub.update_info("max_epochs", runner.max_epochs)
        hub.update_info("max_iters", runner.max_iters)
        if hasattr(runner.train_dataloader.dataset, "metainfo"):
            hub.update_info("dataset_meta", runner.train_dataloader.dataset.metainfo)

    def after_train(self, runner: Runner) -> None:
        """The training is over; its last scalars are fetched."""
        runner.message_hub.pop_info("loop_stage")
        runner.message_hub.flush()

    def before_train_epoch(self, runner: Runner) -> None:
        """Note the epoch."""
        runner.message_hub.update_info("epoch", runner.epoch)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None
    ) -> None:
        """Note the iteration and append the learning rates.

        Raises:
            AssertionError: `get_lr` of the optimizer wrapper returns no dict.
        """
        hub = runner.message_hub
        iteration = runner.iter
        hub.store.step = iteration
        hub.update_info("iter", iteration)
        rates = runner.optim_wrapper.get_lr()
        assert isinstance(rates, dict), (
            "`runner.optim_wrapper.get_lr()` should return a dict of learning rate when training "
            "with OptimWrapper(single optimizer) or OptimWrapperDict(multiple optimizer), but got "
            f"{type(rates)} please check your optimizer constructor return an `OptimWrapper` or "
            "`OptimWrapperDict` instance"
        )
        for name, rate in rates.items():
            hub.update_scalar(f"train/{name}", rate[0])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        """Append the outputs as they are; device tensors are read at the next flush."""
        if outputs is not None:
            runner.message_hub.update_prefixed("train/", outputs)

    def before_val(self, runner: Runner) -> None:
        """Note the stage; finish the log lines of the training before it."""
        self.last_loop_stage = runner.message_hub.get_info("loop_stage")
        runner.message_hub.update_info("loop_stage", "val")
        runner.message_hub.flush()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Take in the metrics of a validation."""
        self._take_metrics(runner, "val", metrics)

    def after_val(self, runner: Runner) -> None:
        """Go back to the stage before the validation."""
        if self.last_loop_stage == "train":
            runner.message_hub.update_info("loop_stage", self.last_loop_stage)
            self.last_loop_stage = None
        else:
            runner.message_hub.pop_info("loop_stage")

    def before_test(self, runner: Runner) -> None:
        """Note the stage."""
        runner.message_hub.update_info("loop_stage", "test")

    def after_test(self, runner: Runner) -> None:
        """The test is over."""
        runner.message_hub.pop_info("loop_stage")

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Take in the metrics of a test."""
        self._take_metrics(runner, "test", metrics)

    def _take_metrics(self, runner: Runner, mode: str, metrics: dict[str, Any] | None) -> None:
        for name, value in (metrics or {}).items():
            if _is_scalar(value):
                runner.message_hub.update_scalar(f"{mode}/{name}", value)
            else:
                runner.message_hub.update_info(f"{mode}/{name}", value)
