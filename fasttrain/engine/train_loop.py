"""The trainers' loop: hooks around `run_step`, and the plain and mixed-precision `run_step`s."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fasttrain.core.hooks import HookList
from fasttrain.core.precision import Precision
from fasttrain.core.update import GradClip, Updater
from fasttrain.engine.events import EventStorage
from fasttrain.engine.metrics import AsyncMetrics

logger = logging.getLogger("fasttrain.engine")


class HookBase:
    """What runs around a trainer's steps: every method is there and does nothing.

    `before_train` and `after_train` run once, `before_step` and `after_step` around each
    `run_step`. Work that takes time belongs into `after_step`: timers count what lies between the
    two.
    """

    trainer: TrainerBase = None  # type: ignore[assignment]  # a weak proxy, set at registration

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, also when an iteration raised."""

    def before_step(self) -> None:
        """Before each iteration."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this hook; a hook that keeps something overrides this and
        has a `load_state_dict`."""
        return {}


def _is_noop(hook: HookBase, stage: str) -> bool:
    own = getattr(HookBase, stage, None)
    return own is not None and getattr(type(hook), stage) is own and stage not in vars(hook)


class TrainerBase:
    """A loop with hooks; it knows no data, model or optimizer.

    Attributes:
        iter: the running iteration; equals `max_iter` in `after_train` when all went well.
        start_iter: the first iteration of this call of `train`.
        max_iter: the iteration at which training ends.
        storage: the EventStorage that is open while training.
    """

    def __init__(self) -> None:
        self._hooks: HookList[HookBase] = HookList(_is_noop)
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks; they run in the order of registration, and None is left out.

        Raises:
            TypeError: an entry is no HookBase.
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise TypeError(
                    f"hooks must be HookBase objects or None, got {type(hook).__name__}; "
                    "wrap plain functions in a CallbackHook"
                )
            hook.trainer = weakref.proxy(self)
            self._hooks.add(hook, 0)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations `start_iter` to `max_iter - 1`.

        Raises:
            ValueError: `start_iter` lies behind `max_iter`.
        """
        if start_iter > max_iter:
            raise ValueError(
                f"start_iter must be <= max_iter, got {start_iter} > {max_iter}; the checkpoint "
                "that was resumed is already past the end: raise max_iter to train on"
            )
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max_iter  # tells after_train that training came to its end
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        for call in self._hooks.stage("before_train"):
            call()

    def after_train(self) -> None:
        """Let every hook clean up; the first error is raised once all have run."""
        self.storage.iter = self.iter
        errors: list[Exception] = []
        for call in self._hooks.stage("after_train"):
            try:
                call()
            except Exception as e:
                logger.exception("after_train of %r failed:", getattr(call, "__self__", call))
                errors.append(e)
        if errors:
            raise errors[0]

    def before_step(self) -> None:
        self.storage.iter = self.iter
        for call in self._hooks.stage("before_step"):
            call()

    def after_step(self) -> None:
        for call in self._hooks.stage("after_step"):
            call()

    def run_step(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no run_step; override it")

    def _keyed_hooks(self) -> Iterator[tuple[str, HookBase]]:
        """Hooks with their keys in a checkpoint: the class's name, `name#1` for its second one."""
        seen: dict[str, int] = {}
        for hook in self._hooks:
            name = type(hook).__qualname__
            index = seen[name] = seen.get(name, -1) + 1
            yield (f"{name}#{index}" if index else name), hook

    def state_dict(self) -> dict[str, Any]:
        """`iteration`, and the states of the hooks that keep one, by class name."""
        states = {key: hook.state_dict() for key, hook in self._keyed_hooks()}
        states = {key: state for key, state in states.items() if state}
        return {"iteration": self.iter, **({"hooks": states} if states else {})}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; hooks that are not registered here are named in a warning."""
        self.iter = state_dict["iteration"]
        own = dict(self._keyed_hooks())
        for key, state in state_dict.get("hooks", {}).items():
            hook = own.get(key)
            load = getattr(hook, "load_state_dict", None)
            if load is None:
                logger.warning("Cannot find the hook %r, its state_dict is ignored.", key)
                continue
            load(state)


class SimpleTrainer(TrainerBase):
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
    ) -> None:
        super().__init__()
        if gather_metric_period < 1:
            raise ValueError(f"gather_metric_period must be >= 1, got {gather_metric_period}")
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self.updater = Updater(optimizer, precision=precision, clip=clip, accumulation=accumulation)
        self.metrics = AsyncMetrics(gather_metric_period)
        self._data_loader_iter_obj: Iterator[Any] | None = None

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Any) -> None:
        """Replace the loader by `data_loader_builder()`; the old one is dropped first."""
        del self.data_loader
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    def next_batch(self) -> Any:
        """The next batch; the loader is started again when it ends.

        Raises:
            ValueError: the loader yields nothing.
        """
        try:
            return next(self._data_loader_iter)
        except StopIteration:
            self._data_loader_iter_obj = None
        try:
            return next(self._data_loader_iter)
        except StopIteration as e:
            raise ValueError(
                "the data loader is empty: expected at least one batch; check the dataset's "
                "length, and batch_size with drop_last=True"
            ) from e

    def run_step(self) -> None:
        """One iteration: batch, forward, update, metrics."""
        assert self.model.training, f"[{type(self).__name__}] model was changed to eval mode!"
        start = time.perf_counter()
        data = self.next_batch()
        data_time = time.perf_counter() - start
        if self.zero_grad_before_forward and self.updater.count % self.updater.accumulation == 0:
            self.updater.zero_grad()
        with self.updater.precision.autocast(self._device_type()):
            loss_dict = self.model(data)
        losses, loss_dict = total_loss(loss_dict)
        self.update(losses)
        self._write_metrics(loss_dict, data_time)

    def update(self, losses: Tensor) -> None:
        """Backpropagate, and step when due."""
        updater = self.updater
        updater.backward(updater.scale(losses))
        if updater.due:
            updater.step()
            if not self.zero_grad_before_forward:
                updater.zero_grad()

    def _device_type(self) -> str:
        parameter = next(self.model.parameters(), None)
        return "cpu" if parameter is None else parameter.device.type

    def _write_metrics(
        self, loss_dict: Mapping[str, Tensor], data_time: float, prefix: str = ""
    ) -> None:
        self.metrics.write(self.storage, loss_dict, data_time, self.iter, prefix)

    def after_train(self) -> None:
        """Bring every metric home before the writers close, then run the hooks."""
        if hasattr(self, "storage"):
            self.metrics.drain(self.storage)
        super().after_train()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        if self.updater.precision.scaler is not None:
            state["grad_scaler"] = self.updater.precision.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if "grad_scaler" in state_dict:
            self.updater.precision.load_state_dict(state_dict["grad_scaler"])


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
        self, loss_dict: Mapping[str, Tensor], data_time: float, prefix: str = ""
    ) -> None:
        super()._write_metrics(loss_dict, data_time, prefix)
        if self.log_grad_scaler and self.grad_scaler is not None:
            self.storage.put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())


def total_loss(losses: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum to backpropagate, and the losses by name; names with `acc` are only measured.

    Raises:
        TypeError: a loss is no tensor with one element.
        ValueError: nothing to backpropagate.
    """
    if isinstance(losses, Tensor):
        losses = {"total_loss": losses}
    if not isinstance(losses, Mapping):
        raise TypeError(
            f"the model must return a loss tensor or a dict of them, got {type(losses).__name__}"
        )
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"loss {name!r} must be a scalar tensor, got {shape}; reduce it first")
    parts = [value for name, value in losses.items() if "acc" not in name.lower()]
    if not parts:
        raise ValueError(
            f"no loss to backpropagate among {sorted(losses)}: names with 'acc' are metrics"
        )
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total, dict(losses)
