"""RunnerBuilders: the methods of a runner that build its parts."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from fasttrain.config import Config
from fasttrain.evaluator import Evaluator
from fasttrain.logging import MessageHub, MMLogger
from fasttrain.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from fasttrain.registry import LOG_PROCESSORS, MODELS, VISUALIZERS
from fasttrain.visualization import Visualizer

from . import builders
from .base_loop import BaseLoop
from .builders.optim import Schedulers
from .checks import check_scheduler_cfg
from .hook_calls import RunnerHooks
from .lazy import LazyPart
from .log_processor import LogProcessor
from .utils import _get_batch_size


class RunnerBuilders(RunnerHooks):
    """Builds parts from their configs; each method returns a part that is built already.

    The loops and the optimizer wrapper read as their configs until they are built.
    """

    cfg: Config
    model: nn.Module
    _train_dataloader: DataLoader | dict | None
    _val_dataloader: DataLoader | dict | None
    _test_dataloader: DataLoader | dict | None
    _val_evaluator: Evaluator | dict | list | None
    _test_evaluator: Evaluator | dict | list | None
    _train_loop = LazyPart(BaseLoop)
    _val_loop = LazyPart(BaseLoop)
    _test_loop = LazyPart(BaseLoop)
    optim_wrapper = LazyPart(OptimWrapper, OptimWrapperDict)
    _built_val_loop: BaseLoop | None
    _built_test_loop: BaseLoop | None

    def build_logger(
        self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """Build the run's logger; by default it writes to `<timestamp>.log` in the log folder."""
        if log_file is None:
            log_file = os.path.join(self._log_dir, f"{self._timestamp}.log")
        options = {"name": self._experiment_name, "file_mode": "a", **kwargs}
        return MMLogger.get_instance(log_level=log_level, log_file=log_file, **options)

    def build_message_hub(self, message_hub: dict | None = None) -> MessageHub:
        """Build the run's message hub from the arguments of `MessageHub.get_instance`."""
        if message_hub is not None and not isinstance(message_hub, dict):
            raise TypeError(f"message_hub should be dict or None, but got {message_hub}")
        return MessageHub.get_instance(**{"name": self._experiment_name, **(message_hub or {})})

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """Build the visualizer; by default it writes `scalars.json` and the config."""
        if visualizer is None:
            return Visualizer.get_instance(
                name=self._experiment_name,
                vis_backends=[{"type": "LocalVisBackend"}],
                save_dir=self._log_dir,
            )
        return builders.build_part(
            visualizer, Visualizer, VISUALIZERS,
            "visualizer should be Visualizer object, a dict or None",
            name=self._experiment_name, save_dir=self._log_dir,
        )  # fmt: skip

    def build_log_processor(self, log_processor: LogProcessor | dict) -> LogProcessor:
        """Build the log processor."""
        return builders.build_part(
            log_processor, LogProcessor, LOG_PROCESSORS,
            "log processor should be a LogProcessor object or dict", type="LogProcessor",
        )  # fmt: skip

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model."""
        message = "model should be a nn.Module object or dict"
        return builders.build_part(model, nn.Module, MODELS, message)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to its device and, in a distributed run, wrap it.

        Args:
            model_wrapper_cfg: the wrapper's config; MMDistributedDataParallel when None.
            model: the bare model.
        """
        sync_bn = self.cfg.get("sync_bn", None)
        return builders.wrap_model(
            model, model_wrapper_cfg, distributed=self._distributed, sync_bn=sync_bn
        )

    def build_optim_wrapper(
        self, optim_wrapper: Optimizer | OptimWrapper | dict
    ) -> OptimWrapper | OptimWrapperDict:
        """Build the optimizer wrapper.

        Args:
            optim_wrapper: a wrapper; a config with `optimizer` and an optional `type`; for several
                optimizers a config with a `constructor`, or a dict of built wrappers.
        """
        return builders.build_optim_wrapper(self.model, optim_wrapper)

    def build_param_scheduler(self, scheduler: _ParamScheduler | dict | list) -> Schedulers:
        """Build the schedulers: a list, or for several optimizers a dict of lists.

        Args:
            scheduler: one or several schedulers or configs, or for several optimizers a dict of
                them by the optimizer's name.
        """
        assert isinstance(self.optim_wrapper, OptimWrapper | OptimWrapperDict), (
            "`build_optimizer` should be called before`build_param_scheduler` because the latter "
            "depends on the former"
        )
        return builders.build_schedulers(scheduler, self.optim_wrapper, self._build_param_scheduler)

    def _build_param_scheduler(
        self, scheduler: _ParamScheduler | dict | list, optim_wrapper: OptimWrapper
    ) -> list[_ParamScheduler]:
        return builders.schedulers_of_config(
            scheduler, optim_wrapper, epoch_length=len(self.train_dataloader),
            max_epochs=self.max_epochs, max_iters=self.max_iters,
        )  # fmt: skip

    def _check_scheduler_cfg(self, param_scheduler: Any) -> None:
        check_scheduler_cfg(param_scheduler)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rates to the real batch size, before schedulers are built.

        Args:
            optim_wrapper: changed in place.
            auto_scale_lr: `base_batch_size`, which the learning rates were chosen for, and
                `enable`.
        """
        builders.scale_lr(
            optim_wrapper,
            auto_scale_lr,
            lambda: self.world_size * _get_batch_size(self._train_dataloader),  # type: ignore[arg-type]
        )

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """Build the evaluator from its config, or from metrics or their configs."""
        return builders.build_evaluator(evaluator)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a dataloader with dataset and sampler.

        Args:
            dataloader: the dataloader or its config.
            seed: seeds sampler and workers.
            diff_rank_seed: whether ranks have different seeds; samplers then get none.
        """
        return builders.build_dataloader(dataloader, seed, diff_rank_seed)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; a dict has a `type` or `by_epoch`."""
        return builders.build_loop(
            loop, "train_loop", None, runner=self, dataloader=self._train_dataloader
        )

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the validation loop, by default a ValLoop."""
        return builders.build_loop(
            loop, "val_loop", "ValLoop",
            runner=self, dataloader=self._val_dataloader, evaluator=self._val_evaluator,
        )  # fmt: skip

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the test loop, by default a TestLoop."""
        return builders.build_loop(
            loop, "test_loop", "TestLoop",
            runner=self, dataloader=self._test_dataloader, evaluator=self._test_evaluator,
        )  # fmt: skip

    @property
    def train_loop(self) -> Any:
        """The training loop, built when first asked for."""
        if self._built_train_loop is None and self._train_loop is not None:
            self._train_loop = self.build_train_loop(self._train_loop)
        return self._built_train_loop

    @property
    def val_loop(self) -> Any:
        """The validation loop, built when first asked for."""
        if self._built_val_loop is None and self._val_loop is not None:
            self._val_loop = self.build_val_loop(self._val_loop)
        return self._built_val_loop

    @property
    def test_loop(self) -> Any:
        """The test loop, built when first asked for."""
        if self._built_test_loop is None and self._test_loop is not None:
            self._test_loop = self.build_test_loop(self._test_loop)
        return self._built_test_loop
