"""Precision of a run: fp32, bf16 or fp16 autocast, and a loss scaler that lives on the device."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger("fasttrain.core.precision")

DTYPES: Mapping[str, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def accelerator_type() -> str:
    """Device type that training uses on this machine: the accelerator's, or `cpu`."""
    if not torch.accelerator.is_available():
        return "cpu"
    device = torch.accelerator.current_accelerator()
    return "cpu" if device is None else device.type


class SkipWatch:
    """Warns when a run skips many optimizer steps in a row, without waiting for the device.

    Every `interval` updates the device counter is copied to pinned memory; the copy is looked at
    on a later update, once it has arrived.
    """

    def __init__(self, *, limit: int = 50, interval: int = 10) -> None:
        if interval < 1 or limit % interval:
            raise ValueError(f"limit must be a multiple of interval, got {limit} and {interval}")
        self.limit = limit
        self.interval = interval
        self._updates = 0
        self._seen: deque[float] = deque([0.0], maxlen=limit // interval + 1)
        self._copy: tuple[Tensor, Any] | None = None

    def tick(self, skipped: Tensor) -> None:
        """Count one update; `skipped` is the device counter of skipped steps, shape []."""
        self._updates += 1
        if self._copy is not None and self._copy[1].query():
            self._look(float(self._copy[0]))
            self._copy = None
        if self._updates % self.interval or self._copy is not None:
            return
        if skipped.device.type != "cuda":
            self._look(float(skipped))  # sync point on accelerators other than CUDA
        elif not torch.cuda.is_current_stream_capturing():
            host = torch.empty((), dtype=skipped.dtype, pin_memory=True)
            host.copy_(skipped, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copy = (host, event)

    def _look(self, count: float) -> None:
        self._seen.append(count)
        if len(self._seen) == self._seen.maxlen and count - self._seen[0] >= self.limit:
            logger.warning(
                "The last %d optimizer steps were ALL SKIPPED because their gradients were not "
                "finite; the model has stopped learning. Check the loss for inf or nan, lower the "
                "learning rate, clip gradients, or use bfloat16, which needs no loss scale.",
                self.limit,
            )
            self._seen.clear()
            self._seen.append(count)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copy": None}


class LossScaler(torch.amp.GradScaler):
    """`torch.amp.GradScaler` whose every part stays on the device, and which counts skipped steps.

    State is interchangeable with torch's. With an optimizer that has `fused_step` (or takes
    `grad_scale` and `found_inf`, as torch's fused ones) a whole step reads nothing from the device.
    """

    def __init__(
        self,
        device: str | None = None,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__(
            device or accelerator_type(),
            init_scale=init_scale,
            growth_factor=growth_factor,
            backoff_factor=backoff_factor,
            growth_interval=growth_interval,
            enabled=enabled,
        )
        self._skipped: Tensor | None = None
        self._watch = SkipWatch()

    @property
    def skipped(self) -> Tensor:
        """Optimizer steps skipped in this process: shape [], whole-valued float32, on the device.

        The tensor is updated in place by `update`; clone it to keep a value.
        """
        if self._skipped is None:
            scale = getattr(self, "_scale", None)  # a disabled scaler has none
            device = torch.device("cpu") if scale is None else scale.device
            self._skipped = torch.zeros((), dtype=torch.float32, device=device)
        return self._skipped

    def record_found_inf(self, optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
        """Take over the finite check of a step that `optimizer` did by itself.

        Args:
            optimizer: the optimizer that unscaled, checked and stepped.
            found_inf: one element, float32, on the device: 1.0 when the step was skipped.
        """
        state = self._per_optimizer_states[id(optimizer)]
        state["found_inf_per_device"] = {found_inf.device: found_inf}
        state["stage"] = torch.amp.grad_scaler.OptState.STEPPED

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Adjust the scale after the steps of this iteration, and count the skipped ones."""
        if not self._enabled:
            return
        self._count_skips()
        super().update(new_scale)
        self._watch.tick(self.skipped)

    def _count_skips(self) -> None:
        for state in self._per_optimizer_states.values():
            found = list(state["found_inf_per_device"].values())
            if not found:
                continue
            flag = found[0]
            skipped = self.skipped
            if len(found) > 1:
                flag = torch.stack([f.reshape(()).to(skipped.device) for f in found]).amax()
            if flag.device != skipped.device:
                if self._scale is None:  # nothing was scaled yet: the counter follows the flags
                    self._skipped = skipped = skipped.to(flag.device)
                else:
                    flag = flag.to(skipped.device, non_blocking=True)
            skipped.add_(flag.reshape(()))


def build_scaler(
    loss_scale: str | float | Mapping[str, Any],
    factory: type[torch.amp.GradScaler] = LossScaler,
    **defaults: Any,
) -> tuple[torch.amp.GradScaler, float | None]:
    """Make a scaler from a user's `loss_scale`.

    Args:
        loss_scale: `"dynamic"`, a fixed scale, or the scaler's arguments.
        factory: the scaler's class.
        defaults: arguments given to `factory` below those of `loss_scale`.
    Returns:
        The scaler, and the fixed scale to pass to every `update` (None when dynamic).
    """
    if loss_scale == "dynamic":
        return factory(**defaults), None
    if isinstance(loss_scale, float | int) and not isinstance(loss_scale, bool):
        return factory(**{**defaults, "init_scale": float(loss_scale)}), float(loss_scale)
    if isinstance(loss_scale, Mapping):
        return factory(**{**defaults, **loss_scale}), None
    raise TypeError(
        f'loss_scale must be of type float, dict, or "dynamic", but got {loss_scale!r} '
        f"({type(loss_scale).__name__})"
    )


class Precision:
    """What a run computes in: the autocast dtype, and the loss scaler that fp16 needs.

    `Precision()` is the fp32 null object: no autocast, no scaler.

    Args:
        name: `"fp32"`, `"bf16"` or `"fp16"`.
        loss_scale: for fp16 only: `"dynamic"`, a fixed scale, or the scaler's arguments.
    """

    def __init__(
        self, name: str = "fp32", *, loss_scale: str | float | Mapping[str, Any] = "dynamic"
    ) -> None:
        if name not in DTYPES:
            raise ValueError(f"precision must be one of {sorted(DTYPES)}, got {name!r}")
        self.name = name
        self.dtype = DTYPES[name]
        self.scaler: LossScaler | None = None
        self.fixed_scale: float | None = None
        if name == "fp16":
            scaler, self.fixed_scale = build_scaler(loss_scale)
            assert isinstance(scaler, LossScaler)
            self.scaler = scaler

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        """Context in which the forward pass runs on devices of `device_type`."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(device_type, dtype=self.dtype)

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state (reads the scale: sync point); empty without a scaler."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.scaler is not None and state_dict:
            self.scaler.load_state_dict(state_dict)
