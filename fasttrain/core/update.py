"""The update: scale the loss, backpropagate, accumulate, clip, step when due, and zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from fasttrain.core.fused.sums import GradientSums, load_sums
from fasttrain.core.precision import Precision

FusedStep = Callable[..., "Tensor | None"]


@dataclass(frozen=True)
class GradClip:
    """How gradients are clipped before a step: by their global norm, or each value by itself.

    Args:
        type: `"norm"` or `"value"`.
        max_norm: largest global norm, for `"norm"`; infinity only measures it.
        clip_value: largest absolute value, for `"value"`.
        norm_type: order of the norm: 2.0, infinity, or any other p > 0.
        error_if_nonfinite: raise when the norm is inf or nan; makes every step a sync point.
    """

    type: Literal["norm", "value"] = "norm"
    max_norm: float = math.inf
    clip_value: float | None = None
    norm_type: float = 2.0
    error_if_nonfinite: bool = False

    def __post_init__(self) -> None:
        if self.type not in ("norm", "value"):
            raise ValueError(f'type of clip_grad should be "norm" or "value" but got {self.type}')
        if self.type == "value" and self.clip_value is None:
            raise ValueError('clip_grad of type "value" needs clip_value, got none')

    def apply(self, parameters: Iterable[Tensor]) -> Tensor | None:
        """Clip the gradients of `parameters` in place; the norm before clipping, or None."""
        if self.type == "value":
            assert self.clip_value is not None
            torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
            return None
        return torch.nn.utils.clip_grad_norm_(
            parameters, self.max_norm, self.norm_type, self.error_if_nonfinite
        )


def gradients_of(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of `optimizer` that have a gradient now."""
    return [
        parameter
        for parameter in _parameters_of(optimizer)
        if parameter.grad is not None and parameter.requires_grad
    ]


def _parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def group_size(count: int, accumulation: int, max_count: int) -> int:
    """How many losses the accumulation group of iteration `count` sums up.

    Args:
        count: iterations done before this one.
        accumulation: iterations per optimizer step.
        max_count: the run's last iteration (exclusive); the group that it cuts short is smaller.
            Negative when unknown.
    Returns:
        0 when the run was over before `count`, at the end of a group.
    """
    remainder = max_count % accumulation
    if accumulation == 1 or max_count < 0 or count < max_count - remainder:
        return accumulation
    return remainder


def is_due(count: int, accumulation: int, max_count: int) -> bool:
    """Whether the optimizer steps after `count` iterations."""
    return count % accumulation == 0 or count == max_count


def fused_step_of(optimizer: Optimizer) -> FusedStep | None:
    """The optimizer's one-call step.

    None when it has none, when `fused=False` asks for torch's own parts, or when its `step` was
    replaced.
    """
    if getattr(type(optimizer), "fused_step", None) is None:
        return None
    if optimizer.defaults.get("fused") is False:
        return None
    replaced = optimizer.__dict__.get("step")
    if replaced is not None:
        if getattr(replaced, "_wrapped_by_lr_sched", None) is not True:
            return None
        # torch's schedulers wrap `step` only to notice that it was called.
        optimizer._opt_called = True  # type: ignore[attr-defined]
    step: FusedStep = optimizer.fused_step  # type: ignore[attr-defined]
    return step


def composed_step(
    optimizer: Optimizer,
    *,
    clip: Callable[[], Tensor | None] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """Unscale, clip and step with torch's own parts; what `clip` returned."""
    norm = None
    if clip is not None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        norm = clip()
    if scaler is None:
        optimizer.step(**kwargs)
    else:
        scaler.step(optimizer, **kwargs)
    return norm


def enable_overlap_norm(optimizer: Optimizer) -> Any:
    """Let `optimizer` take the gradient norm while gradients are still in cache, in backward."""
    enable = getattr(optimizer, "enable_overlap_norm", None)
    if enable is None:
        raise ValueError(
            f"overlap_norm=True needs a fused optimizer, got {type(optimizer).__name__}; "
            "use one of fasttrain's optimizers without fused=False, or leave overlap_norm out"
        )
    return enable()


class Updater:
    """From a loss to new parameters: one object for every training loop.

    With a fused optimizer a step is one call that unscales, checks, clips and updates; with any
    other it is composed of torch's parts. Neither path waits for the device, unless
    `clip.error_if_nonfinite` (one wait per step) or the optimizer itself asks to.

    Args:
        optimizer: any torch optimizer.
        precision: fp32 when None.
        clip: no clipping when None.
        accumulation: iterations per optimizer step.
        set_to_none: drop gradients after a step; False keeps their memory and zeroes it, which a
            fused step does on the way.
        overlap_norm: take the norm during backward (fused optimizers only).
        accumulate_in_fp32: sum float16 and bfloat16 gradients in float32 when more than one
            iteration makes a step; see `GradientSums`.

    Attributes:
        sums: the float32 sums; None when gradients are not summed in float32.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        precision: Precision | None = None,
        clip: GradClip | None = None,
        accumulation: int = 1,
        set_to_none: bool = True,
        overlap_norm: bool = False,
        accumulate_in_fp32: bool = False,
    ) -> None:
        if accumulation < 1:
            raise ValueError(f"accumulation must be >= 1, got {accumulation}")
        self.optimizer = optimizer
        self.precision = precision or Precision()
        self.clip = clip
        self.accumulation = accumulation
        self.set_to_none = set_to_none
        self.count = 0
        self.max_count = -1
        self._one_call = fused_step_of(optimizer) is not None
        self._overlap = enable_overlap_norm(optimizer) if overlap_norm else None
        self.sums = GradientSums(optimizer) if accumulate_in_fp32 and accumulation > 1 else None

    def begin(self, count: int, max_count: int = -1) -> None:
        """Set the iterations done so far and the run's length (negative: unknown)."""
        self.count = count
        self.max_count = max_count

    @property
    def due(self) -> bool:
        """Whether the optimizer steps after the iterations done so far."""
        return is_due(self.count, self.accumulation, self.max_count)

    @property
    def should_sync(self) -> bool:
        """Whether gradients of the coming iteration must be reduced over processes."""
        return is_due(self.count + 1, self.accumulation, self.max_count)

    def scale(self, loss: Tensor) -> Tensor:
        """`loss` times the loss scale, over the group's size unless the fused step divides."""
        if self.accumulation > 1 and not self._one_call:
            loss = loss / self._group_size(self.count)
        scaler = self.precision.scaler
        if scaler is None:
            return loss
        scaled: Tensor = scaler.scale(loss)
        return scaled

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backpropagate a loss that `scale` returned."""
        for watch in (self._overlap, self.sums):
            if watch is not None:
                watch.begin(self.should_sync)
        loss.backward(**kwargs)  # type: ignore[no-untyped-call]
        self.count += 1

    def step(self, **kwargs: Any) -> Tensor | None:
        """Unscale, check, clip and step.

        Returns:
            The gradients' norm before clipping: shape [], float32, on the device; None when no
            clipping by norm was asked for.
        """
        return self._step(False, kwargs)[0]

    def _step(self, zero: bool, kwargs: dict[str, Any]) -> tuple[Tensor | None, bool]:
        """Step; the norm, and whether the gradients were zeroed on the way, if `zero`."""
        scaler = self.precision.scaler
        fused = fused_step_of(self.optimizer) if self._one_call and not kwargs else None
        size = self._group_size(self.count - 1)
        if self.sums is not None:
            self.sums.prepare_step(kwargs, composed=fused is None)
        if fused is not None:
            norm = fused(scaler=scaler, clip=self.clip, divisor=float(size), zero=zero)
        else:
            if self._one_call and size > 1:  # the losses were left whole for the fused step
                grads = [p.grad for p in gradients_of(self.optimizer) if p.grad is not None]
                torch._foreach_div_(grads, size)
            norm = composed_step(
                self.optimizer,
                clip=None if self.clip is None else self._clip,
                scaler=scaler,
                **kwargs,
            )
        if scaler is not None:
            scaler.update(self.precision.fixed_scale)
        return norm, zero and fused is not None

    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients, as `set_to_none` says unless `kwargs` say otherwise."""
        self.optimizer.zero_grad(**{"set_to_none": self.set_to_none, **kwargs})
        if self.sums is not None and not self.sums.read_in_place:
            self.sums.clear()

    def update(self, loss: Tensor) -> Tensor | None:
        """Backpropagate `loss`, step when due, and return the gradient norm.

        Args:
            loss: shape [], unscaled.
        Returns:
            As `step`; None also when no step was due. Reading it is a sync point.
        """
        self.backward(self.scale(loss))
        if not self.due:
            return None
        norm, zeroed = self._step(not self.set_to_none, {})
        if not zeroed:
            self.zero_grad()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What an unfinished accumulation group has summed up so far: `gradients` and `sums`, each
        by the position of the parameter in the optimizer. Empty between two groups."""
        if self.due:
            return {}
        params = enumerate(_parameters_of(self.optimizer))
        gradients = {index: param.grad for index, param in params if param.grad is not None}
        return {"gradients": gradients, "sums": {} if self.sums is None else self.sums.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue the group whose state `state_dict` returned.

        Raises:
            ValueError: the optimizer has not the parameters that the gradients belong to.
        """
        params = _parameters_of(self.optimizer)
        for index, gradient in state_dict.get("gradients", {}).items():
            if index >= len(params) or params[index].shape != gradient.shape:
                raise ValueError(
                    f"the saved gradient {index}, of shape {tuple(gradient.shape)}, fits none of "
                    f"the optimizer's {len(params)} parameters: the model must be the one saved"
                )
            params[index].grad = gradient.to(params[index].device, copy=True)
        load_sums(self.optimizer, self.sums, state_dict.get("sums", {}))

    def _group_size(self, count: int) -> int:
        size = group_size(count, self.accumulation, self.max_count)
        if size == 0:
            raise ValueError(
                f"iteration {count} is past the {self.max_count} that begin() announced; "
                "give begin() the length of the whole run"
            )
        return size

    def _clip(self) -> Tensor | None:
        assert self.clip is not None
        return self.clip.apply(gradients_of(self.optimizer))
