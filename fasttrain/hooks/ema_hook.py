"""Keep an averaged copy of the model; validate, test and save with it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from logging import WARNING
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fasttrain.core.checkpoint import order_after_copies
from fasttrain.core.sharding import any_sharded
from fasttrain.hooks.hook import Hook
from fasttrain.logging import print_log
from fasttrain.model import is_model_wrapper
from fasttrain.model.state_dicts import load_state_dict
from fasttrain.registry import HOOKS, MODELS

if TYPE_CHECKING:
    from fasttrain.runner import Runner

_PREFIX = "module."


@HOOKS.register_module()
class EMAHook(Hook):
    """Averages the weights after each iteration and swaps them in for validation and test.

    In a saved checkpoint `state_dict` holds the averaged weights, `ema_state_dict` the trained
    ones and the average's own counter.

    Args:
        ema_type: class of the averaged model.
        strict_load: whether keys that do not match are an error when the average is loaded.
        begin_iter: iteration from which on the average moves; before, it copies the model.
        begin_epoch: the same in epochs; only one of both may be set.
        kwargs: passed to the averaged model.
    """

    priority = "NORMAL"

    def __init__(
        self,
        ema_type: str = "ExponentialMovingAverage",
        strict_load: bool = False,
        begin_iter: int = 0,
        begin_epoch: int = 0,
        **kwargs: Any,
    ) -> None:
        assert not (begin_iter != 0 and begin_epoch != 0), (
            "`begin_iter` and `begin_epoch` should not be both set."
        )
        for name, begin in (("begin_iter", begin_iter), ("begin_epoch", begin_epoch)):
            assert begin >= 0, f"`{name}` must larger than or equal to 0, but got {name}: {begin}"
        self.strict_load = strict_load
        self.ema_cfg = dict(type=ema_type, **kwargs)
        self.begin_iter = begin_iter
        self.begin_epoch = begin_epoch
        self.enabled_by_epoch = begin_epoch > 0

    def before_run(self, runner: Runner) -> None:
        """Make the averaged copy of the runner's model."""
        model = runner.model
        self.src_model: torch.nn.Module = model.module if is_model_wrapper(model) else model  # type: ignore[assignment]
        if any_sharded(self.src_model.parameters()):
            raise ValueError(
                "EMAHook keeps a copy of the model, and one whose parameters are spread over the "
                "processes (fully_shard) cannot be copied: leave the hook or the wrapper out"
            )
        self.ema_model = MODELS.build(self.ema_cfg, default_args=dict(model=self.src_model))

    def before_train(self, runner: Runner) -> None:
        """Check that the average begins within the run."""
        unit = "epoch" if self.enabled_by_epoch else "iter"
        begin, limit = getattr(self, f"begin_{unit}"), getattr(runner, f"max_{unit}s")
        assert begin <= limit, (
            f"self.begin_{unit} should be smaller than or equal to runner.max_{unit}s: "
            f"{limit}, but got begin_{unit}: {begin}"
        )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Let the average follow the model."""
        if self._ema_started(runner):
            self.ema_model.update_parameters(self.src_model)
            return
        source = self.src_model.state_dict()
        for name, mean in self.ema_model.module.state_dict().items():
            mean.data.copy_(source[name].data)

    def before_val_epoch(self, runner: Runner) -> None:
        """Validate with the averaged weights."""
        self._wait_for_copies(runner)
        self._swap_ema_parameters()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Go on with the trained weights."""
        self._swap_ema_parameters()

    def before_test_epoch(self, runner: Runner) -> None:
        """Test with the averaged weights."""
        self._wait_for_copies(runner)
        self._swap_ema_parameters()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Go on with the trained weights."""
        self._swap_ema_parameters()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the averaged weights under `state_dict`, the trained ones under `ema_state_dict`."""
        checkpoint["ema_state_dict"] = self.ema_model.state_dict()
        self._swap_ema_state_dict(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the average on resume; otherwise start it from the loaded weights."""
        if not hasattr(self, "ema_model"):
            return  # loaded before a run: the average will be a copy of what was loaded
        if "ema_state_dict" in checkpoint and runner._resume:
            self._swap_ema_state_dict(checkpoint)
            self.ema_model.load_state_dict(checkpoint["ema_state_dict"], strict=self.strict_load)
            return
        if runner._resume:
            print_log(
                "There is no `ema_state_dict` in checkpoint. `EMAHook` will make a copy of "
                "`state_dict` as the initial `ema_state_dict`",
                "current",
                WARNING,
            )
        load_state_dict(
            self.ema_model.module, copy.deepcopy(checkpoint["state_dict"]), strict=self.strict_load
        )

    @staticmethod
    def _wait_for_copies(runner: Runner) -> None:
        """Let a save that is under way read the trained weights before others take their place."""
        from fasttrain.runner.snapshot import optimizers_of

        order_after_copies(optimizers_of(getattr(runner, "optim_wrapper", None)))

    @torch.no_grad()
    def _swap_ema_parameters(self) -> None:
        """Exchange the values of the trained and the averaged weights, in place."""
        trained = [tensor.data for tensor in self._swapped(self.src_model)]
        averaged = [tensor.data for tensor in self._swapped(self.ema_model.module)]
        _exchange(trained, averaged)

    def _swapped(self, model: torch.nn.Module) -> Iterator[Tensor]:
        if self.ema_model.update_buffers:
            return itertools.chain(model.parameters(), model.buffers())
        return model.parameters()

    def _swap_ema_state_dict(self, checkpoint: dict) -> None:
        """Exchange the weights of both entries by name."""
        trained, averaged = checkpoint["state_dict"], checkpoint["ema_state_dict"]
        for name in list(averaged):
            if name.startswith(_PREFIX):
                bare = name[len(_PREFIX) :]
                averaged[name], trained[bare] = trained[bare], averaged[name]

    def _ema_started(self, runner: Runner) -> bool:
        """Whether the average moves by now; with this iteration or epoch counted in."""
        if self.enabled_by_epoch:
            return runner.epoch + 1 >= self.begin_epoch
        return runner.iter + 1 >= self.begin_iter


def _exchange(left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
    for one, other in zip(left, right, strict=True):
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)
