"""The optimizer wrapper with mixed precision: autocast, and a loss scale kept on the device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler

from fasttrain.core.precision import LossScaler, accelerator_type, build_scaler
from fasttrain.core.update import composed_step
from fasttrain.registry import OPTIM_WRAPPERS

from .optimizer_wrapper import OptimWrapper, joined, one_call


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Mixed precision: the forward pass under autocast, the backward pass with a loss scale.

    A step whose gradients are not finite is skipped; `train/skipped_steps` in the message hub
    counts them, and 50 in a row are warned about. Works on the CPU too (bfloat16 by default).

    Args:
        loss_scale: `"dynamic"`, a fixed scale, or arguments of `torch.amp.GradScaler`.
        dtype: what autocast computes in: one of `valid_dtypes` or the torch dtype; the device's
            default when None.
        use_fsdp: use torch's scaler for sharded gradients.
        kwargs: arguments of `OptimWrapper`.
    """

    valid_dtypes = ("float16", "bfloat16", "float32", "float64")

    def __init__(
        self,
        loss_scale: Any = "dynamic",
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        factory: type[GradScaler] = LossScaler
        if use_fsdp:
            from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

            factory = ShardedGradScaler
        self._accelerator = accelerator_type()
        self._scale_update_param: float | None
        self.loss_scaler, self._scale_update_param = build_scaler(
            loss_scale, factory, device=self._accelerator
        )
        self.cast_dtype = self._as_dtype(dtype)

    def _as_dtype(self, dtype: str | torch.dtype | None) -> torch.dtype | None:
        if isinstance(dtype, str):
            assert dtype in self.valid_dtypes, (
                f"dtype should be any of {self.valid_dtypes}, got {dtype}"
            )
            named: torch.dtype = getattr(torch, dtype)
            return named
        assert dtype is None or isinstance(dtype, torch.dtype), (
            f"dtype should be None or instance of torch.dtype, got {dtype}"
        )
        assert dtype is None or str(dtype).removeprefix("torch.") in self.valid_dtypes, (
            f"dtype should be any of {self.valid_dtypes}, got {dtype}"
        )
        return dtype

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Backpropagate `loss` times the loss scale and count the iteration."""
        self._before_backward()
        self.loss_scaler.scale(loss).backward(**kwargs)  # type: ignore[union-attr]
        self._inner_count += 1

    @one_call
    def step(self, **kwargs: Any) -> None:
        """Unscale, check, clip and update the parameters, then adjust the loss scale."""
        scaler = self.loss_scaler
        own = isinstance(scaler, LossScaler) and scaler.is_enabled()
        if not own or not self._step_at_once(kwargs, scaler=scaler):
            self._prepare_sums(kwargs, composed=True)
            clip = self._clip_grad if self.clip_grad_kwargs else None
            composed_step(self.optimizer, clip=clip, scaler=scaler, **kwargs)
        scaler.update(self._scale_update_param)
        if isinstance(scaler, LossScaler) and self.cast_dtype in (None, torch.float16):
            self.message_hub.update_scalar("train/skipped_steps", scaler.skipped.clone())

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and `loss_scaler` (reads the scale: a sync point)."""
        state = super().state_dict()
        state["loss_scaler"] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        scaler_state = state.pop("loss_scaler", None)
        if scaler_state:  # a disabled scaler saves an empty state
            self.loss_scaler.load_state_dict(scaler_state)
        super().load_state_dict(state)

    def optim_context(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Context of the forward pass: autocast, and what `OptimWrapper` adds."""
        contexts = [super().optim_context(model)]
        if self.cast_dtype not in (torch.float32, torch.float64):
            # Where parameters lie, and the accelerator if that is somewhere else.
            own = self.optimizer.param_groups[0]["params"][0].device.type
            contexts = [torch.autocast(own, dtype=self.cast_dtype), *contexts]
            if own != self._accelerator:
                contexts.append(torch.autocast(self._accelerator, dtype=self.cast_dtype))
        return joined(contexts)
