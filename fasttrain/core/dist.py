"""Thin helpers over torch.distributed; without a process group every one is the identity."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor

ProcessGroup = torch_dist.ProcessGroup
T = TypeVar("T")

_GLOO_ENDS_S = 0.1
REDUCE_OPS = ("sum", "product", "min", "max", "band", "bor", "bxor")


def is_initialized() -> bool:
    """Whether a default process group exists."""
    return torch_dist.is_available() and torch_dist.is_initialized()


def leave() -> None:
    """Destroy the process group, for the end of a process; without one, nothing happens.

    A thread of Gloo may be freeing the tensors of the last collective still. It needs the
    interpreter for that, and aborts the process when the interpreter is ending: it is given time.
    """
    if not is_initialized():
        return
    with_gloo = "gloo" in (backend() or "")
    torch_dist.destroy_process_group()
    if with_gloo:
        gc.collect()  # whoever else holds the group; with the last one its threads are joined
        time.sleep(_GLOO_ENDS_S)


def rank(group: ProcessGroup | None = None) -> int:
    """The rank of this process in `group`; 0 without a process group."""
    return torch_dist.get_rank(group) if is_initialized() else 0


def world_size(group: ProcessGroup | None = None) -> int:
    """The number of processes in `group`; 1 without a process group."""
    return torch_dist.get_world_size(group) if is_initialized() else 1


def backend(group: ProcessGroup | None = None) -> str | None:
    """The backend's name, None without a process group."""
    return str(torch_dist.get_backend(group)) if is_initialized() else None


def barrier(group: ProcessGroup | None = None) -> None:
    """Wait until every process of `group` is here."""
    if is_initialized():
        torch_dist.barrier(group)


def comm_device(group: ProcessGroup | None = None) -> torch.device:
    """The device on which the backend of `group` wants its tensors."""
    if "nccl" in (backend(group) or ""):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def reduce_op(name: str) -> Any:
    """torch's reduce operation of that name (any case)."""
    if name.lower() not in REDUCE_OPS:
        raise ValueError(f"reduce op should be one of {REDUCE_OPS}, but got {name}")
    return getattr(torch_dist.ReduceOp, name.upper())


def through_comm_device(
    tensor: Tensor, collective: Callable[[Tensor], Any], group: ProcessGroup | None = None
) -> None:
    """Run an in-place `collective` on a contiguous copy of `tensor` where the backend needs one."""
    wire = tensor.to(comm_device(group)).contiguous()
    collective(wire)
    if wire is not tensor:
        with torch.no_grad():
            tensor.copy_(wire)


def all_reduce(tensor: Tensor, op: str = "sum", group: ProcessGroup | None = None) -> None:
    """Reduce `tensor` in place over all processes.

    Args:
        tensor: any shape and device; equal shapes on every process.
        op: 'mean' or one of `REDUCE_OPS`. A mean of integers is truncated.
        group: None for the default group.
    """
    size = world_size(group)
    if size == 1:
        return
    mean = op.lower() == "mean"
    reduction = reduce_op("sum" if mean else op)

    def collective(wire: Tensor) -> None:
        torch_dist.all_reduce(wire, reduction, group)
        if mean:
            wire.copy_(wire / size)

    through_comm_device(tensor, collective, group)


def broadcast(tensor: Tensor, src: int = 0, group: ProcessGroup | None = None) -> None:
    """Overwrite `tensor` in place with that of the process `src`."""
    if world_size(group) > 1:
        through_comm_device(tensor, lambda wire: torch_dist.broadcast(wire, src, group), group)


def broadcast_object(value: T, src: int = 0, group: ProcessGroup | None = None) -> T:
    """Return the `value` that the process `src` passed (any object that pickles)."""
    if world_size(group) == 1:
        return value
    box = [value]
    torch_dist.broadcast_object_list(box, src, group)
    return box[0]


def all_gather_object(value: T, group: ProcessGroup | None = None) -> list[T]:
    """Return every process's `value` in the order of ranks."""
    size = world_size(group)
    if size == 1:
        return [value]
    gathered: list[Any] = [None] * size
    torch_dist.all_gather_object(gathered, value, group)
    return gathered
