"""float32 sums of low-precision gradients over the batches that one step takes together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fasttrain import native
from fasttrain.core.fused.layouts import DTYPE_NAMES, dense_like
from fasttrain.core.fused.opaque import opaque
from fasttrain.core.fused.options import LOW


def is_distributed() -> bool:
    """Whether gradients are reduced over several processes."""
    distributed = torch.distributed
    running = distributed.is_available() and distributed.is_initialized()
    return running and distributed.get_world_size() > 1


def native_adder() -> Callable[[Tensor, Tensor, bool], None] | None:
    """`add(total, grad, first)` in one pass over CPU memory; None without the compiled module."""
    if not native.enabled():
        return None
    module, path = native.module(), native.cpu_path()
    dtypes = {dtype: getattr(module.Dtype, DTYPE_NAMES[dtype]) for dtype in LOW}

    def add(total: Tensor, grad: Tensor, first: bool) -> None:
        threads = torch.get_num_threads()
        module.add_gradient(
            path,
            total.data_ptr(),
            grad.data_ptr(),
            grad.numel(),
            dtypes[grad.dtype],
            first,
            threads,
        )

    return add


class GradientSums:
    """Takes each float16 or bfloat16 gradient as soon as backward has it, and sums in float32.

    The sum stays from batch to batch; the gradient itself is dropped, so that `param.grad` is None
    between backward and step. A fused optimizer's step reads the sums. Any other step gets them by
    `deliver`, rounded once. With several processes they are delivered before the last backward
    pass of a group, so that the all-reduce sees the whole sum: two roundings, whatever the number
    of batches. float32 parameters and sparse gradients are left alone.

    Args:
        optimizer: whose parameters are meant; those that it is given later are found too.

    Attributes:
        read_in_place: whether the optimizer's step reads the sums.
        changes: counts how often the set of summed parameters changed.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._totals: dict[Tensor, Tensor] = {}
        self._filled: set[Tensor] = set()
        self._handles: dict[Tensor, Any] = {}
        self._taking = True
        self._add_native = native_adder()
        self.changes = 0
        self.read_in_place = False
        self._follow()

    # -- what the training loop calls -------------------------------------------------------

    def begin(self, last: bool) -> None:
        """Prepare for a backward pass; `last` says that a step follows it."""
        if not self._filled:
            self._follow()
        self._taking = not (last and self._distributed)
        if not self._taking:
            self.deliver()

    def prepare_step(self, arguments: Mapping[str, Any], *, composed: bool) -> None:
        """Call before a step; `composed`: it takes torch's parts, which look at `param.grad`.

        Raises:
            RuntimeError: the step runs backward by itself, so that it would find no gradients.
        """
        if self.read_in_place and not composed:
            return
        if arguments.get("closure") is not None:
            raise RuntimeError(
                "accumulate_in_fp32 takes gradients away while backward runs, so that a step with "
                "a closure finds none: leave accumulate_in_fp32 or the closure out"
            )
        self.deliver()

    def deliver(self, params: Iterable[Tensor] | None = None) -> None:
        """Put sums into `param.grad`, rounded to the parameter's dtype, and start anew."""
        for param in list(self._filled) if params is None else params:
            if param in self._filled:
                self._filled.remove(param)
                total = self._totals[param]
                if param.grad is not None:
                    total.add_(param.grad.detach())
                param.grad = total.to(param.dtype)

    def clear(self) -> None:
        """Forget the sums; their memory stays for the next ones."""
        self._filled.clear()

    def zero(self) -> None:
        """Set the sums to zero, as gradients that are kept."""
        for param in self._filled:
            self._totals[param].zero_()

    def remove(self) -> None:
        """Take the hooks off again and free the sums."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._totals.clear()
        self._filled.clear()
        if self.read_in_place:
            self._optimizer.use_gradient_sums(None)  # type: ignore[attr-defined]
        self.read_in_place = False
        self.changes += 1

    def state_dict(self) -> dict[int, Tensor]:
        """The sums of an unfinished group: position among the optimizer's parameters -> sum."""
        params = enumerate(self._params())
        return {index: self._totals[p] for index, p in params if p in self._filled}

    def load_state_dict(self, state_dict: Mapping[int, Tensor]) -> None:
        """Continue the group whose sums `state_dict` returned."""
        self.clear()
        self._follow()
        for index, param in enumerate(self._params()):
            if index in state_dict:
                self._totals[param] = dense_like(
                    state_dict[index].detach().to(param.device, copy=True), param, torch.float32
                )
                self._filled.add(param)

    # -- what a fused step calls ------------------------------------------------------------

    def sums_up(self, param: Tensor) -> bool:
        """Whether the step finds the gradient of `param` here, in float32."""
        return self.read_in_place and param in self._handles

    def gradient(self, param: Tensor) -> Tensor | None:
        """The gradient of `param` for the step: its sum, or its `grad` when it is not summed up."""
        grad = param.grad
        if not self.sums_up(param):
            return grad
        if grad is not None and (grad.layout is torch.strided or param in self._filled):
            self._add(param, grad)  # somebody put it there, or sums began only now
            param.grad = None
        return self._totals[param] if param in self._filled else param.grad

    def mend(self, param: Tensor) -> None:
        """Give the sum of `param` the parameter's memory layout."""
        if param in self._filled:
            self._totals[param] = dense_like(self._totals[param], param, torch.float32)

    # -- inside -----------------------------------------------------------------------------

    def _params(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _follow(self) -> None:
        """Hook the parameters that are to be summed up now, and let go of the others."""
        self._distributed = is_distributed()
        use = getattr(self._optimizer, "use_gradient_sums", None)
        reads = use is not None and bool(use(None if self._distributed else self))
        wanted = {
            p
            for p in self._params()
            if p.requires_grad
            and p.dtype in LOW
            and p.layout is torch.strided
            and type(p) in (torch.nn.Parameter, Tensor)
        }
        if reads == self.read_in_place and wanted == self._handles.keys():
            return
        self.read_in_place = reads
        self.changes += 1
        for param in self._handles.keys() - wanted:
            self._handles.pop(param).remove()
            self._totals.pop(param, None)
        for param in wanted - self._handles.keys():
            self._hook(param)

    def _hook(self, param: Tensor) -> None:
        register: Any = param.register_post_accumulate_grad_hook
        self._handles[param] = register(self._take)

    @opaque
    def _take(self, param: Tensor) -> None:
        grad = param.grad
        if self._taking and grad is not None and grad.layout is torch.strided:
            self._add(param, grad)
            param.grad = None

    def _add(self, param: Tensor, grad: Tensor) -> None:
        grad = grad.detach()
        total = self._totals.get(param)
        if total is None or total.shape != grad.shape or total.device != grad.device:
            self._filled.discard(param)
            total = torch.empty_like(param, dtype=torch.float32, requires_grad=False)
            self._totals[param] = total
        first = param not in self._filled
        if (
            self._add_native is not None
            and grad.device.type == "cpu"
            and grad.dtype in LOW
            and grad.stride() == total.stride()
        ):
            self._add_native(total, grad, first)
        elif first:
            total.copy_(grad)
        else:
            total.add_(grad)
        self._filled.add(param)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_handles", "_add_native")
        state = {key: value for key, value in self.__dict__.items() if key not in left_out}
        return {**state, "hooked": list(self._handles)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        hooked = state.pop("hooked")
        self.__dict__.update(state)
        self._add_native = native_adder()
        self._handles = {}
        for param in hooked:
            self._hook(param)


def load_sums(
    optimizer: torch.optim.Optimizer, sums: GradientSums | None, saved: Mapping[int, Tensor]
) -> None:
    """Continue a saved group, also where gradients are not summed in float32 any more."""
    if sums is None:
        sums = GradientSums(optimizer)
        sums.load_state_dict(saved)
        sums.deliver()
        sums.remove()
    else:
        sums.load_state_dict(saved)
