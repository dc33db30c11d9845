"""The native parameter table of one optimizer: built at its first step, used by every later one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fasttrain import native
from fasttrain.core.fused.clipping import ClipPlan
from fasttrain.core.fused.composed import step_outside
from fasttrain.core.fused.layouts import DTYPE_NAMES, dense_like, is_dense
from fasttrain.core.fused.options import MASTER

logger = logging.getLogger("fasttrain.core.fused")

CPU = torch.device("cpu")

# The norm (None unless clipping by norm) and 1.0 for a skipped step (None unless checked), on the
# device, shape [].
Step = tuple[Tensor | None, Tensor | None]


def table_device(params: Iterable[Tensor]) -> torch.device:
    """The device of the table: the first that the native passes can run on."""
    for param in params:
        device: torch.device = param.device
        if device.type == "cpu":
            return device
        if device.type == "cuda":
            with torch.cuda.device(device):  # it is asked whether kernels fit the current device
                if native.cuda_usable():
                    return device
    return CPU


def reason_outside(param: Tensor, device: torch.device) -> str | None:
    """Why a parameter stays with torch's own step; None when a table on `device` takes it."""
    if param.layout is not torch.strided:
        return f"layout {param.layout}"
    if param.dtype not in DTYPE_NAMES:
        return f"dtype {param.dtype}"
    if param.device != device:
        return f"device {param.device}"
    if type(param) not in (torch.nn.Parameter, Tensor):
        return f"type {type(param).__name__}"
    if getattr(param, "grad_dtype", None) not in (None, param.dtype):
        return "grad_dtype"
    return None if is_dense(param) else "a layout with gaps"


class Binding:
    """A table and what it was built from.

    Attributes:
        device: where it runs.
        params: parameters of the table, in its order.
        outside: parameters that the native passes do not take.
        usable: False when torch's own step must take all parameters.
    """

    def __init__(self, optimizer: Any, previous_first: set[Tensor]) -> None:
        self._module = native.module()
        self._norms = {
            k: getattr(self._module.NormKind, k) for k in ("none", "two", "inf", "power")
        }
        self.outside: list[Tensor] = []
        self.params: list[Tensor] = []
        self._waiting: list[Tensor] = []  # without a gradient so far
        sums = optimizer._sums
        self._sum_changes = -1 if sums is None else sums.changes
        groups = optimizer.param_groups
        self.device = table_device(p for group in groups for p in group["params"])
        on_cpu = self.device.type == "cpu"
        self._table = self._module.Table(
            native.cpu_path(),
            native.tensor_access(),
            type(optimizer).rule_of,
            list(optimizer.hyper_keys),
        )
        if not on_cpu:
            self._table.set_gpu(self.device)
        self._fill(optimizer, previous_first)
        self._table.hold_state(optimizer.state)
        self.usable = not self.outside or (on_cpu and bool(self.params))
        self._finish()

    def _finish(self) -> None:
        self._table.finish()

    def _fill(self, optimizer: Any, previous_first: set[Tensor]) -> None:
        reasons: dict[str, int] = {}
        position = -1
        for index, group in enumerate(optimizer.param_groups):
            self._table.add_group(group)
            for param in group["params"]:
                position += 1
                reason = (
                    "sparse gradients"
                    if param in optimizer._sparse
                    else reason_outside(param, self.device)
                )
                if reason is not None:
                    reasons[reason] = reasons.get(reason, 0) + 1
                    self.outside.append(param)
                elif optimizer.gradient_of(param) is None and not optimizer.state.get(param):
                    self._waiting.append(param)
                    self._table.watch(param)
                else:
                    self._add(optimizer, index, param, position, param in previous_first)
        if reasons and not optimizer._said:
            optimizer._said = True
            logger.info(
                "%s: torch's own step updates %s",
                type(optimizer).__name__,
                ", ".join(f"{count} parameter(s) with {what}" for what, count in reasons.items()),
            )

    def _add(self, optimizer: Any, index: int, param: Tensor, position: int, first: bool) -> None:
        options, group = optimizer._options, optimizer.param_groups[index]
        state = optimizer.state.get(param, {})
        step = 0
        if optimizer.has_step_count or options.stochastic_rounding:
            count = state.get("step")
            if (
                not isinstance(count, Tensor)
                or count.dtype is not torch.float32
                or count.device != self.device
            ):
                count = float(count or 0.0)
                state["step"] = torch.full((), count, dtype=torch.float32, device=self.device)
            step = state["step"].data_ptr()
        dtype = options.dtype_of(param)
        pointers = []
        for name in optimizer.state_names(group):
            value = state.get(name)
            if value is None:
                first = True
                value = torch.full_like(
                    param, optimizer.new_state(group, param), dtype=dtype, requires_grad=False
                )
            state[name] = dense_like(value, param, dtype)
            pointers.append(state[name].data_ptr())
        master, kind = 0, options.master_of(param)
        if kind != "none":
            value = state.get(MASTER)
            wanted = torch.int16 if kind == "split16" else torch.float32
            if value is None or value.dtype is not wanted:
                value = options.new_master(param)
            state[MASTER] = dense_like(value, param, wanted)
            master = state[MASTER].data_ptr()
        if state:
            optimizer.state[param] = state
        self.params.append(param)
        sums = optimizer._sums
        summed = sums is not None and sums.sums_up(param)
        self._table.add(
            param,
            index,
            getattr(self._module.Dtype, DTYPE_NAMES[torch.float32 if summed else param.dtype]),
            getattr(self._module.Dtype, DTYPE_NAMES[dtype]),
            pointers,
            master,
            getattr(self._module.Master, kind),
            step,
            options.slot_seed(position),
            options.stochastic_rounding,
            first,
        )

    def run(
        self,
        optimizer: Any,
        scale: Tensor | None,
        found_inf: Tensor | None,
        divisor: float,
        clip: ClipPlan,
        check: bool,
        zero: bool,
    ) -> Step | str:
        """Both passes over the table.

        Args:
            optimizer: the one that this was built from.
            scale: the loss scale that gradients carry, shape [].
            found_inf: not zero when somebody found a non-finite gradient already, shape [].
            divisor: number of batches whose gradients were summed.
            clip: how gradients are clipped.
            check: change nothing when a gradient is not finite.
            zero: zero the gradients on the way.
        Returns:
            The step, or what stands in the way: "rebind" when the table is out of date,
            "irregular" when a gradient has another memory layout.
        """
        if found_inf is not None and bool(found_inf):
            return None, None
        gradients = self.gradients(optimizer)
        if isinstance(gradients, str):
            return gradients
        unscale = 1.0 / divisor if scale is None else 1.0 / (divisor * float(scale))
        outside, overlap = self.outside, optimizer._overlap
        extra = clip.reduce(outside, check) if outside else 0.0
        known = -1.0
        if overlap is not None and (clip.kind == "two" or (check and not clip.by_norm)):
            known = overlap.collect(self.params)
        found = self._table.step(
            optimizer.param_groups,
            optimizer.state,
            gradients,
            unscale,
            self._norms[clip.kind],
            clip.power,
            clip.max_norm,
            clip.limit,
            extra,
            known,
            check,
            zero,
            torch.get_num_threads(),
        )
        if found.__class__ is str:
            stale: str = found
            return stale
        norm, coefficient, finite = found
        if outside:
            update = finite or not check
            step_outside(optimizer, outside, unscale * coefficient, clip, update, zero)
        return (
            torch.scalar_tensor(norm) if clip.by_norm else None,
            torch.scalar_tensor(0.0 if finite else 1.0) if check else None,
        )

    def gradients(self, optimizer: Any) -> list[Tensor | None] | str | None:
        """What the table is to step with: None for each parameter's `grad`, or "rebind"."""
        sums = optimizer._sums
        if sums is None:
            return None if self._sum_changes < 0 else "rebind"
        if sums.changes != self._sum_changes or any(
            sums.gradient(param) is not None for param in self._waiting
        ):
            return "rebind"
        sums.deliver(self.outside)
        return [sums.gradient(param) for param in self.params]

    def never_updated(self) -> set[Tensor]:
        """Parameters whose states have seen no update yet."""
        return {param for i, param in enumerate(self.params) if self._table.first(i)}

    def mend_gradients(self, optimizer: Any) -> None:
        """Give gradients the parameter's memory layout; who has sparse ones is remembered."""
        sparse, sums = optimizer._sparse, optimizer._sums
        for param in self.params:
            grad = param.grad
            if grad is None:
                if sums is not None:
                    sums.mend(param)
                continue
            if grad.layout is not torch.strided:
                sparse.add(param)
            else:
                param.grad = dense_like(grad, param, param.dtype)
