"""The optimizer wrapper in full precision: accumulation, clipping, and the step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fasttrain.core.fused.sums import GradientSums, load_sums
from fasttrain.core.update import (
    GradClip,
    enable_overlap_norm,
    fused_step_of,
    gradients_of,
    group_size,
    is_due,
)
from fasttrain.logging import MessageHub, print_log
from fasttrain.registry import OPTIM_WRAPPERS

from .base import BaseOptimWrapper

_NO_CONTEXT = nullcontext()
SUMS = "gradient_sums"  # their key in a state dict


def joined(contexts: Iterable[AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
    """One context out of several; those that do nothing cost nothing."""
    active = [context for context in contexts if context is not _NO_CONTEXT]
    if len(active) < 2:
        return active[0] if active else _NO_CONTEXT
    return _entered(active)


@contextmanager
def _entered(contexts: list[AbstractContextManager[Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


_Method = TypeVar("_Method", bound=Callable[..., Any])


def one_call(method: _Method) -> _Method:
    """Mark a method that the fused one-call step can stand for; an override lacks the mark."""
    method.__fused_step_covers__ = True  # type: ignore[attr-defined]
    return method


@OPTIM_WRAPPERS.register_module()
class OptimWrapper(BaseOptimWrapper):
    """Drives an optimizer: `update_params(loss)` is all that a training step needs.

    With a fused optimizer, clipping and step are one call; as soon as a subclass overrides
    `step`, `_clip_grad` or `zero_grad`, they are taken one by one, so that it sees clipped
    gradients.

    Args:
        optimizer: the optimizer to wrap.
        accumulative_counts: iterations per optimizer step; losses are divided by it.
        clip_grad: `type` (`"norm"`, the default, or `"value"`) and the arguments of torch's
            `clip_grad_norm_` or `clip_grad_value_`. The norm goes to the message hub as
            `train/grad_norm`, without waiting for the device.
        overlap_norm: take the norm during backward (fused optimizers only).
        accumulate_in_fp32: sum float16 and bfloat16 gradients in float32 when more than one
            iteration makes a step; see `GradientSums`.
    """

    # Also for subclasses whose constructor is all their own.
    _accumulative_counts: int = 1
    _inner_count: int = 0
    _max_counts: int = -1
    clip_grad_kwargs: dict[str, Any] | None = None
    _clip: GradClip | None = None
    _clip_seen: Any = None
    _one_call: bool = False
    _zero_in_step: bool = False  # asks the step to zero the gradients on its way
    _zeroed: bool = False  # what it answers
    _overlap: Any = None
    _sums: GradientSums | None = None

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulative_counts: int = 1,
        clip_grad: dict[str, Any] | None = None,
        overlap_norm: bool = False,
        accumulate_in_fp32: bool = False,
    ) -> None:
        super().__init__(optimizer)
        assert accumulative_counts > 0, (
            "_accumulative_counts at least greater than or equal to 1, "
            f"but got {accumulative_counts}"
        )
        self._accumulative_counts = accumulative_counts
        self._init_clip(clip_grad)
        self.message_hub = MessageHub.get_current_instance()
        self._inner_count = 0
        self._max_counts = -1
        self._remainder_counts = -1
        if len(optimizer.param_groups) > 1:
            self.base_param_settings = {"params": torch.tensor([0.0]), **optimizer.defaults}
        if overlap_norm:
            self._overlap = enable_overlap_norm(optimizer)
        if accumulate_in_fp32 and accumulative_counts > 1:
            self._sums = GradientSums(optimizer)
        self._one_call = all(
            hasattr(getattr(type(self), name), "__fused_step_covers__")
            for name in ("step", "_clip_grad", "zero_grad")
        )

    def _init_clip(self, clip_grad: dict[str, Any] | None) -> None:
        self.clip_grad_kwargs = None
        if clip_grad is None:
            return
        assert isinstance(clip_grad, dict) and clip_grad, (
            "If `clip_grad` is not None, it should be a `dict` which is the arguments of "
            "`torch.nn.utils.clip_grad_norm_` or clip_grad_value_`."
        )
        kwargs = dict(clip_grad)
        kind = kwargs.pop("type", "norm")
        if kind not in ("norm", "value"):
            raise ValueError(f'type of clip_grad should be "norm" or "value" but got {kind}')
        self.clip_func = getattr(torch.nn.utils, f"clip_grad_{kind}_")
        self.grad_name = f"grad_{kind}"
        self.clip_grad_kwargs = kwargs

    def update_params(
        self,
        loss: torch.Tensor,
        step_kwargs: dict[str, Any] | None = None,
        zero_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Backpropagate `loss`, and when due, step and clear the gradients.

        Args:
            loss: shape [], unscaled.
            step_kwargs: arguments of `step`.
            zero_kwargs: arguments of `zero_grad`; a fused step zeroes the gradients on its way
                when they say `set_to_none=False`.
        """
        self.backward(self.scale_loss(loss))
        if not self.should_update():
            return
        if not self._one_call:  # an overridden method may look at the gradients
            self._prepare_sums(step_kwargs or {}, composed=True)
        zero_kwargs = zero_kwargs or {}
        self._zero_in_step = self._one_call and zero_kwargs == {"set_to_none": False}
        self._zeroed = False
        try:
            self.step(**(step_kwargs or {}))
        finally:
            self._zero_in_step = False
        if not self._zeroed:
            self.zero_grad(**zero_kwargs)

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Backpropagate `loss` and count the iteration."""
        if self._overlap is not None or self._sums is not None:
            self._before_backward()
        loss.backward(**kwargs)
        self._inner_count += 1

    def _before_backward(self) -> None:
        """Tell those who work during backward whether a step follows it."""
        for watch in (self._overlap, self._sums):
            if watch is not None:
                watch.begin(self.should_sync())

    def _prepare_sums(self, kwargs: dict[str, Any], *, composed: bool) -> None:
        if self._sums is not None:
            self._sums.prepare_step(kwargs, composed=composed)

    @one_call
    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients, with the arguments of the optimizer's `zero_grad`."""
        self.optimizer.zero_grad(**kwargs)
        if self._sums is not None and not self._sums.read_in_place:
            self._sums.clear()

    @one_call
    def step(self, **kwargs: Any) -> None:
        """Clip and update the parameters, with the arguments of the optimizer's `step`.

        Waits for the device only where `clip_grad` asks for `error_if_nonfinite`.
        """
        clip = self._clip_grad if self.clip_grad_kwargs else None
        if (clip or self._zero_in_step) and self._step_at_once(kwargs):
            return
        if self._sums is not None:
            self._sums.prepare_step(kwargs, composed=clip is not None)
        if clip is not None:
            clip()
        self.optimizer.step(**kwargs)

    def optim_context(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Context of the forward pass: no gradient reduction in mid-accumulation under DDP."""
        if self._accumulative_counts > 1 and hasattr(model, "no_sync") and not self.should_sync():
            no_sync: Callable[[], AbstractContextManager[Any]] = model.no_sync  # type: ignore[assignment]
            return no_sync()
        return _NO_CONTEXT

    @one_call
    def _clip_grad(self) -> None:
        """Clip the gradients in place and publish their norm."""
        parameters = gradients_of(self.optimizer)
        if parameters:
            self._publish_norm(self.clip_func(parameters, **(self.clip_grad_kwargs or {})))

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Tell the wrapper where the run stands, for an exact last accumulation group.

        Args:
            model: warned about when it has batch norms, which see the small batches only.
            init_counts: iterations done.
            max_counts: iterations of the whole run.
        """
        self._inner_count = init_counts
        self._max_counts = max_counts
        if self._inner_count % self._accumulative_counts != 0:
            self._warn(
                "Resumed iteration number is not divisible by `_accumulative_counts`: the "
                "gradients of the unfinished group go on when the checkpoint holds them, as the "
                "Runner's do, and are lost otherwise."
            )
        if self._accumulative_counts > 1 and any(
            isinstance(module, _BatchNorm) for module in model.modules()
        ):
            self._warn(
                "Gradient accumulative may slightly decrease performance: the model's BatchNorm "
                "layers see each small batch by itself."
            )
        self._remainder_counts = self._max_counts % self._accumulative_counts

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, and the float32 sums of a group that is not finished."""
        state = super().state_dict()
        sums = {} if self._sums is None else self._sums.state_dict()
        return {**state, SUMS: sums} if sums else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        sums = state.pop(SUMS, {})
        super().load_state_dict(state)
        load_sums(self.optimizer, self._sums, sums)

    def should_update(self) -> bool:
        """Whether the optimizer steps after the iterations done so far."""
        return is_due(self._inner_count, self._accumulative_counts, self._max_counts)

    def should_sync(self) -> bool:
        """Whether gradients of the coming iteration must be reduced over processes."""
        return is_due(self._inner_count + 1, self._accumulative_counts, self._max_counts)

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """`loss` over the number of losses that its accumulation group sums up."""
        if self._accumulative_counts == 1:
            return loss
        size = group_size(self._inner_count, self._accumulative_counts, self._max_counts)
        assert size > 0, (
            "loss_factor should be larger than zero! This happens when `initialize_count_status` "
            f"was called with wrong counts: iteration {self._inner_count} of {self._max_counts}"
        )
        return loss / size

    @property
    def inner_count(self) -> int:
        """Iterations done."""
        return self._inner_count

    def __repr__(self) -> str:
        return (
            f"Type: {type(self).__name__}\n"
            f"_accumulative_counts: {self._accumulative_counts}\n"
            f"optimizer: \n{self.optimizer}\n"
        )

    def _step_at_once(self, kwargs: dict[str, Any], **how: Any) -> bool:
        """Step by the one call that does everything, unless somebody could see the difference.

        Args:
            kwargs: arguments of `step`.
            how: more arguments of the one call.
        """
        if kwargs or not self._one_call or self.__dict__.keys() & {"_clip_grad", "zero_grad"}:
            return False
        seen = (self.clip_func, self.clip_grad_kwargs) if self.clip_grad_kwargs else None
        if seen != self._clip_seen:
            self._clip_seen = None if seen is None else (self.clip_func, dict(seen[1] or {}))
            self._clip = None if seen is None else self._as_clip()
        if seen is not None and self._clip is None:
            return False
        fused = fused_step_of(self.optimizer)
        if fused is None:
            return False
        self._prepare_sums(kwargs, composed=False)
        zero = {"zero": True} if self._zero_in_step else {}
        self._publish_norm(fused(clip=self._clip, **how, **zero))
        self._zeroed = self._zero_in_step
        return True

    def _as_clip(self) -> GradClip | None:
        """The clipping as the fused step takes it, None when it cannot do it."""
        kwargs = dict(self.clip_grad_kwargs or {})
        strict = False
        if self.clip_func is torch.nn.utils.clip_grad_norm_:
            known = {"max_norm", "norm_type"}
            strict = bool(kwargs.pop("error_if_nonfinite", False))
        elif self.clip_func is torch.nn.utils.clip_grad_value_:
            known = {"clip_value"}
        else:
            return None
        if not kwargs.keys() <= known:
            return None
        numbers = {key: float(value) for key, value in kwargs.items()}
        kind = "value" if "clip_value" in known else "norm"
        return GradClip(type=kind, error_if_nonfinite=strict, **numbers)  # type: ignore[arg-type]

    def _publish_norm(self, norm: torch.Tensor | None) -> None:
        if norm is not None:
            self.message_hub.update_scalar(f"train/{self.grad_name}", norm)

    @staticmethod
    def _warn(message: str) -> None:
        print_log(message, logger="current", level=logging.WARNING)
