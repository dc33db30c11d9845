"""Trainers that update a model: what they share, SimpleTrainer, and its mixed-precision form."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fasttrain.core.precision import Precision
from fasttrain.core.update import GradClip, Updater
from fasttrain.engine.batches import endless_batches
from fasttrain.engine.events import get_event_storage
from fasttrain.engine.loss_sum import backward_root
from fasttrain.engine.metrics import AsyncMetrics
from fasttrain.engine.trainer_base import HookBase, TrainerBase

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase", "UpdatingTrainer"]


class UpdatingTrainer(TrainerBase):
    """A trainer with a model, an optimizer and losses: from a batch to an update and to metrics.

    A `run_step` is `fetch`, `call_model` and `learn`.

    Attributes:
        updates_per_iter: how often `run_step` calls `learn`.
    """

    updates_per_iter = 1
    model: nn.Module
    optimizer: Optimizer
    updater: Updater
    metrics: AsyncMetrics

    def next_batch(self) -> Any:
        """The next batch of the training data."""
        raise NotImplementedError(f"{type(self).__name__} has no next_batch; override it")

    def fetch(self, next_batch: Callable[[], Any] | None = None) -> tuple[Any, float]:
        """The next batch, and the seconds spent waiting for it.

        Raises:
            AssertionError: the model was left in eval mode.
        """
        assert self.model.training, f"[{type(self).__name__}] model was changed to eval mode!"
        start = time.perf_counter()
        batch = (next_batch or self.next_batch)()
        return batch, time.perf_counter() - start

    @cached_property
    def _device_type(self) -> str:
        parameter = next(self.model.parameters(), None)
        return "cpu" if parameter is None else parameter.device.type

    def call_model(self, *inputs: Any, **options: Any) -> Any:
        """What the model returns, in the precision of the run."""
        precision = self.updater.precision
        if precision.dtype is None:
            return self.model(*inputs, **options)
        with precision.autocast(self._device_type):
            return self.model(*inputs, **options)

    def learn(self, losses: Any, data_time: float | None, prefix: str = "") -> None:
        """Backpropagate the losses, write them, and step when due.

        They are written before the step: where reading them is free, a loss that is not finite
        ends the run with the weights as they were.

        Args:
            losses: a scalar tensor, or name -> scalar tensor.
            data_time: seconds spent waiting for the batch; None when they are counted elsewhere.
            prefix: put before the losses' names.
        """
        root, gradient, loss_dict = backward_root(losses)
        updater = self.updater
        updater.backward(updater.scale(root), gradient=gradient)
        self.after_backward()
        self._write_metrics(loss_dict, data_time, prefix)
        if updater.accumulation == 1:
            self.step()
            return
        if updater.due:
            self.step()
        self._choose_sync()

    def step(self) -> None:
        """One step of the optimizer, from the gradients of one or more `learn`s."""
        self.updater.step()
        self.updater.zero_grad()

    def _write_metrics(
        self, loss_dict: Mapping[str, Tensor], data_time: float | None, prefix: str = ""
    ) -> None:
        is_last = self.iter + 1 == self.max_iter
        self.metrics.write(self.storage, loss_dict, data_time, self.iter, prefix, is_last=is_last)

    def before_train(self) -> None:
        updates = self.updates_per_iter
        self.updater.begin(self.start_iter * updates, self.max_iter * updates)
        self._choose_sync()
        super().before_train()

    def _choose_sync(self) -> None:
        """Under DDP, let only the last backward pass before a step reduce the gradients."""
        if isinstance(self.model, DistributedDataParallel):
            self.model.require_backward_grad_sync = self.updater.should_sync

    def after_train(self) -> None:
        """Bring every metric home before the writers close, then run the hooks."""
        try:
            self.metrics.drain(self.storage)
        finally:
            super().after_train()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        if self.updater.precision.scaler is not None:
            state["grad_scaler"] = self.updater.precision.state_dict()
        unfinished = self.updater.state_dict()
        if unfinished:
            state["accumulation"] = unfinished
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.updater.precision.load_state_dict(state_dict.get("grad_scaler", {}))
        self.updater.load_state_dict(state_dict.get("accumulation", {}))


class SimpleTrainer(UpdatingTrainer):
    """One optimizer, one loader, one loss dict: forward, backward, step per iteration.

    Args:
        model: called with a batch; returns a loss or a dict of losses, each of shape [].
        data_loader: iterated over again when it ends.
        optimizer: any torch optimizer; fasttrain's fused ones step in one call.
        gather_metric_period: iterations between two gatherings of the metrics over processes.
        zero_grad_before_forward: zero before the forward pass instead of after the step.
        async_write_metrics: kept for compatibility; metrics are always written without waiting.
        precision: fp32 when None.
        clip: how gradients are clipped; not at all when None.
        accumulation: iterations per optimizer step.
        accumulate_in_fp32: sum float16 and bfloat16 gradients of such a step in float32.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
        *,
        precision: Precision | None = None,
        clip: GradClip | None = None,
        accumulation: int = 1,
        accumulate_in_fp32: bool = False,
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self.updater = Updater(
            optimizer,
            precision=precision,
            clip=clip,
            accumulation=accumulation,
            accumulate_in_fp32=accumulate_in_fp32,
        )
        self.metrics = AsyncMetrics(gather_metric_period)
        self._data_loader_iter_obj: Iterator[Any] | None = None

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = endless_batches(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Replace the loader by `data_loader_builder()`; the old one is dropped first."""
        del self.data_loader
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    def next_batch(self) -> Any:
        """The next batch; the loader is started again when it ends.

        Raises:
            ValueError: the loader yields nothing.
        """
        return next(self._data_loader_iter_obj or self._data_loader_iter)

    def run_step(self) -> None:
        """One iteration: batch, forward, update, metrics."""
        data, data_time = self.fetch()
        if self.zero_grad_before_forward and self.updater.due:
            self.updater.zero_grad()
        self.learn(self.call_model(data), data_time)

    def step(self) -> None:
        self.updater.step()
        if not self.zero_grad_before_forward:
            self.updater.zero_grad()

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Write losses into the current storage, for loops of your own.

        Raises:
            FloatingPointError: their sum is not finite (known at once on the CPU only).
        """
        AsyncMetrics().write(get_event_storage(), loss_dict, data_time, cur_iter, prefix)


class AMPTrainer(SimpleTrainer):
    """SimpleTrainer in mixed precision: float16 with a loss scale, or bfloat16.

    Args:
        precision: `torch.float16`, `torch.bfloat16`, or a Precision.
        grad_scaler: the loss scaler to use for float16; a LossScaler when None.
        log_grad_scaler: write the loss scale as the metric `[metric]grad_scaler`.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: Any = None,
        precision: torch.dtype | Precision = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(precision, torch.dtype):
            names = {torch.float16: "fp16", torch.bfloat16: "bf16"}
            if precision not in names:
                raise ValueError(f"precision must be one of {list(names)}, got {precision}")
            precision = Precision(names[precision])
        if grad_scaler is not None:
            precision = copy.copy(precision)
            precision.scaler = grad_scaler
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
            precision=precision,
            **kwargs,
        )
        self.log_grad_scaler = log_grad_scaler

    @property
    def grad_scaler(self) -> Any:
        """The loss scaler; None when the precision needs none."""
        return self.updater.precision.scaler

    def _write_metrics(
        self, loss_dict: Mapping[str, Tensor], data_time: float | None, prefix: str = ""
    ) -> None:
        super()._write_metrics(loss_dict, data_time, prefix)
        if self.log_grad_scaler and self.grad_scaler is not None:
            scale = getattr(self.grad_scaler, "_scale", None)  # on the device, read at a flush
            value = self.grad_scaler.get_scale() if scale is None else scale
            self.storage.put_scalar("[metric]grad_scaler", value)
