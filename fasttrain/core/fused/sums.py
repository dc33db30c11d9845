"""float32 sums of low-precision gradients over the batches that one step takes together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fasttrain import native
from fasttrain.core.fused.layouts import dense_like
from fasttrain.core.fused.opaque import opaque
from fasttrain.core.fused.options import LOW


def is_distributed() -> bool:
    """Whether gradients are reduced over several processes."""
    distributed = torch.distributed
    running = distributed.is_available() and distributed.is_initialized()
    return running and distributed.get_world_size() > 1


class Adder:
    """Adds a gradient to a float32 sum: in one native pass on the CPU, else by torch."""

    def __init__(self) -> None:
        self._native: Any = None
        if native.enabled():
            self._native = native.module().add_gradient
            self._how = native.tensor_access(), native.cpu_path()

    def __call__(self, total: Tensor, grad: Tensor, first: bool) -> None:
        """`total += grad`; with `first`, `total = grad`."""
        if self._native is not None and self._native(
            *self._how, total, grad, first, torch.get_num_threads()
        ):
            return
        with torch.no_grad():
            if first:
                total.copy_(grad)
            else:
                total.add_(grad)

    def __reduce__(self) -> tuple[Any, ...]:
        return Adder, ()


class ParamSum:
    """The sum of one parameter.

    Attributes:
        total: float32, in the parameter's layout; None before the first gradient.
        filled: whether there is a gradient in `total`.
        taking: whether gradients are taken out of `param.grad` when backward has them.
    """

    __slots__ = ("add", "filled", "handle", "taking", "total")

    def __init__(self, add: Adder) -> None:
        self.add = add
        self.total: Tensor | None = None
        self.filled = False
        self.taking = True
        self.handle: Any = None

    def hook(self, param: Tensor) -> None:
        """Take each gradient of `param` from now on."""
        register: Any = param.register_post_accumulate_grad_hook
        self.handle = register(self.take)

    @opaque
    def take(self, param: Tensor) -> None:
        """Add the gradient to the sum, and drop it; a sparse one is left where it is."""
        grad = param.grad
        if grad is not None and self.taking and grad.layout is torch.strided:
            self.put(param, grad)
            param.grad = None

    def put(self, param: Tensor, grad: Tensor) -> None:
        """Add `grad` to the sum."""
        total = self.total
        if total is None or total.shape != grad.shape or total.device != grad.device:
            self.filled = False
            total = self.total = torch.empty_like(param, dtype=torch.float32, requires_grad=False)
        self.add(total, grad, not self.filled)
        self.filled = True

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "handle"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


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
        self._sums: dict[Tensor, ParamSum] = {}
        self._add = Adder()
        self.changes = 0
        self.read_in_place = False
        self._follow()

    # -- what the training loop calls -------------------------------------------------------

    def begin(self, last: bool) -> None:
        """Prepare for a backward pass; `last` says that a step follows it."""
        if not any(entry.filled for entry in self._sums.values()):
            self._follow()
        if self._distributed:
            for entry in self._sums.values():
                entry.taking = not last
            if last:
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
        for param in self._sums if params is None else params:
            entry = self._sums.get(param)
            if entry is not None and entry.filled:
                assert entry.total is not None
                if param.grad is not None:
                    entry.put(param, param.grad)
                entry.filled = False
                param.grad = entry.total.to(param.dtype)

    def clear(self) -> None:
        """Forget the sums; their memory stays for the next ones."""
        for entry in self._sums.values():
            entry.filled = False

    def zero(self) -> None:
        """Set the sums to zero, as gradients that are kept."""
        for entry in self._sums.values():
            if entry.filled and entry.total is not None:
                entry.total.zero_()

    def remove(self) -> None:
        """Take the hooks off again and free the sums."""
        for entry in self._sums.values():
            entry.handle.remove()
        self._sums.clear()
        if self.read_in_place:
            self._optimizer.use_gradient_sums(None)  # type: ignore[attr-defined]
        self.read_in_place = False
        self.changes += 1

    def state_dict(self) -> dict[int, Tensor]:
        """The sums of an unfinished group: position among the optimizer's parameters -> sum."""
        found = {}
        for index, param in enumerate(self._params()):
            entry = self._sums.get(param)
            if entry is not None and entry.filled and entry.total is not None:
                found[index] = entry.total
        return found

    def load_state_dict(self, state_dict: Mapping[int, Tensor]) -> None:
        """Continue the group whose sums `state_dict` returned.

        Raises:
            ValueError: a sum belongs to a parameter that is not summed up here.
        """
        self.clear()
        self._follow()
        params = self._params()
        for index, total in state_dict.items():
            entry = self._sums.get(params[index]) if index < len(params) else None
            if entry is None:
                raise ValueError(
                    f"the saved float32 sum of gradient {index} belongs to no float16 or bfloat16 "
                    f"parameter of this optimizer, which has {len(params)} parameters: the model "
                    "must be the one that was saved, in the same precision"
                )
            param = params[index]
            total = total.detach().to(param.device, copy=True)
            entry.total = dense_like(total, param, torch.float32)
            entry.filled = True

    # -- what a fused step calls ------------------------------------------------------------

    def sums_up(self, param: Tensor) -> bool:
        """Whether the step finds the gradient of `param` here, in float32."""
        return self.read_in_place and param in self._sums

    def gradient(self, param: Tensor) -> Tensor | None:
        """The gradient of `param` for the step: its sum, or its `grad` when it is not summed up."""
        grad = param.grad
        entry = self._sums.get(param) if self.read_in_place else None
        if entry is None:
            return grad
        if grad is not None and (entry.filled or grad.layout is torch.strided):
            entry.put(param, grad)  # somebody put it there, or sums began only now
            grad = param.grad = None
        return entry.total if entry.filled else grad

    def mend(self, param: Tensor) -> None:
        """Give the sum of `param` the parameter's memory layout."""
        entry = self._sums.get(param)
        if entry is not None and entry.total is not None:
            entry.total = dense_like(entry.total, param, torch.float32)

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
        if reads == self.read_in_place and wanted == self._sums.keys():
            return
        self.read_in_place = reads
        self.changes += 1
        for param in self._sums.keys() - wanted:
            self._sums.pop(param).handle.remove()
        for param in wanted - self._sums.keys():
            self._sums[param] = ParamSum(self._add)
            self._sums[param].hook(param)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for param, entry in self._sums.items():
            entry.hook(param)


def load_sums(
    optimizer: torch.optim.Optimizer, sums: GradientSums | None, saved: Mapping[int, Tensor]
) -> None:
    """Continue a saved group, also where gradients are not summed in float32 any more."""
    if not saved:
        return
    if sums is None:
        sums = GradientSums(optimizer)
        sums.load_state_dict(saved)
        sums.deliver()
        sums.remove()
    else:
        sums.load_state_dict(saved)
