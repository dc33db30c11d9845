"""Torch's step where parameters or moments are stored in fewer bits: widen, step, round back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fasttrain.core.fused.options import LOW, MASTER, StateOptions

WORD = 0xFFFFFFFF


def random_bits(seed: int, counter: Tensor | int) -> Any:
    """One 32-bit random word per counter: the native passes' hash, in 64-bit integers."""
    x = (counter * 0x9E3779B9 + seed) & WORD
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = x ^ (x >> shift)
        x = (x * factor) & WORD
    return x ^ (x >> 16)


def round_stochastically(values: Tensor, seed: int) -> Tensor:
    """float32 to bfloat16, up or down with the probability of what is cut off."""
    counter = torch.arange(values.numel(), dtype=torch.int64).reshape(values.shape)
    bits = values.contiguous().view(torch.int32)
    noise = (random_bits(seed, counter.to(values.device)) & 0xFFFF).to(torch.int32)
    rounded = torch.where(torch.isfinite(values), bits + noise, bits)
    return (rounded & -0x10000).view(torch.float32).to(torch.bfloat16)


def join_halves(param: Tensor, rest: Tensor) -> Tensor:
    """The float32 master of a bfloat16 parameter and the 16 bits that it lacks."""
    return (param.float().view(torch.int32) + rest.to(torch.int32)).view(torch.float32)


def split_halves(master: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter (the master rounded half up) and what must be added to its bits."""
    bits = master.view(torch.int32)
    upper = (bits + 0x8000) & -0x10000
    finite = torch.isfinite(master)
    param = torch.where(finite, upper.view(torch.float32), master).to(torch.bfloat16)
    return param, torch.where(finite, bits - upper, torch.zeros_like(bits)).to(torch.int16)


class Shadow:
    """The float32 stand-in of one parameter for the length of one step."""

    def __init__(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], options: StateOptions
    ) -> None:
        self.param, self.state, self.options = param, state, options
        self.kind = options.master_of(param)
        if self.kind != "none" and state.get(MASTER) is None:
            state[MASTER] = options.new_master(param)
        if self.kind == "full":
            self.full = state[MASTER]
        elif self.kind == "split16":
            self.full = join_halves(param.detach(), state[MASTER])
        else:
            self.full = param.detach().float() if param.dtype in LOW else param.detach()
        self.full.grad = grad.float()
        self.full_state = {
            key: value.float() if isinstance(value, Tensor) and value.dtype in LOW else value
            for key, value in state.items()
            if key != MASTER
        }

    def put_back(self, seed: int) -> None:
        """Round the results into the parameter and its state."""
        self.full.grad = None
        if self.kind == "split16":
            high, rest = split_halves(self.full)
            self.param.copy_(high)
            self.state[MASTER] = rest
        elif self.full.data_ptr() != self.param.data_ptr():
            self.param.copy_(self.full)
        dtype = self.options.dtype_of(self.param)
        moments = [k for k, v in self.full_state.items() if k != "step" and isinstance(v, Tensor)]
        for index, key in enumerate(moments):
            value = self.full_state[key]
            if self.options.stochastic_rounding:
                value = round_stochastically(value, (seed + index * 0x632BE5AB) & WORD)
            self.full_state[key] = value.to(dtype)
        self.state.update(self.full_state)


@torch.no_grad()
def shadow_step(optimizer: Any, step: Callable[[Any], Any]) -> None:
    """Run torch's `step` with float32 stand-ins for what is stored in fewer bits.

    Args:
        optimizer: a fused optimizer with precision options.
        step: torch's step, without hooks.
    """
    options: StateOptions = optimizer._options
    groups, state = optimizer.param_groups, optimizer.state
    position = {id(p): i for i, p in enumerate(p for group in groups for p in group["params"])}
    shadows: list[Shadow] = []
    swapped: defaultdict[Tensor, Any] = defaultdict(dict)
    swapped_groups = []
    for group in groups:
        params = []
        for param in group["params"]:
            grad = optimizer.gradient_of(param)
            if grad is None:
                continue
            if param.dtype not in (torch.float32, *LOW):
                swapped[param] = state[param]
                params.append(param)
                continue
            if options.stochastic_rounding and not optimizer.has_step_count:
                state[param]["step"] = state[param].get("step", torch.zeros(())) + 1
            shadow = Shadow(param, grad, state[param], options)
            shadows.append(shadow)
            swapped[shadow.full] = shadow.full_state
            params.append(shadow.full)
        swapped_groups.append({**group, "params": params})
    optimizer.param_groups, optimizer.state = swapped_groups, swapped
    try:
        step(optimizer)
    finally:
        optimizer.param_groups, optimizer.state = groups, state
        for shadow in shadows:
            count = int(shadow.full_state.get("step", 0))
            shadow.put_back(random_bits(options.slot_seed(position[id(shadow.param)]), count))
