"""Ranks and collectives under the names that engine users know; identities in a single process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as torch_dist
from torch import Tensor

from fasttrain.core import dist


class LocalGroup:
    """The process group of this machine, set once by `launch`."""

    group: Any = None


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Make one group per machine; every process must call this.

    Raises:
        ValueError: the world does not divide into machines of that many processes.
    """
    world = dist.world_size()
    if world % num_workers_per_machine:
        raise ValueError(
            f"the world of {world} processes does not divide into machines of "
            f"{num_workers_per_machine}"
        )
    mine = dist.rank() // num_workers_per_machine
    for machine in range(world // num_workers_per_machine):
        first = machine * num_workers_per_machine
        group = torch_dist.new_group(list(range(first, first + num_workers_per_machine)))
        if machine == mine:
            LocalGroup.group = group


def get_local_process_group() -> Any:
    """The process group of this machine.

    Raises:
        AssertionError: `launch` (or `create_local_process_group`) has made none.
    """
    assert LocalGroup.group is not None, (
        "there is no group of this machine's processes; start them by launch(), or call "
        "create_local_process_group() in all of them"
    )
    return LocalGroup.group


def get_world_size() -> int:
    return dist.world_size()


def get_rank() -> int:
    return dist.rank()


def get_local_rank() -> int:
    """The rank among the processes of this machine."""
    return dist.rank(LocalGroup.group) if dist.is_initialized() else 0


def get_local_size() -> int:
    """The number of processes on this machine."""
    return dist.world_size(LocalGroup.group) if dist.is_initialized() else 1


def is_main_process() -> bool:
    return dist.rank() == 0


def synchronize() -> None:
    """Wait until all processes are here."""
    if dist.world_size() > 1:
        dist.barrier()


def all_gather(data: Any, group: Any = None) -> list[Any]:
    """Every process's `data` (anything that pickles), in the order of ranks."""
    return dist.all_gather_object(data, group)


def gather(data: Any, dst: int = 0, group: Any = None) -> list[Any]:
    """Every process's `data` on process `dst`, an empty list on the others."""
    gathered = dist.all_gather_object(data, group)
    return gathered if dist.rank(group) == dst else []


def shared_random_seed() -> int:
    """A random number that is the same on all processes."""
    return int(all_gather(np.random.randint(2**31))[0])


def reduce_dict(input_dict: dict[str, Tensor], average: bool = True) -> dict[str, Tensor]:
    """Reduce scalars over all processes in one collective.

    Args:
        input_dict: name -> tensor of shape []; the same names on every process.
        average: the mean instead of the sum.
    """
    world = dist.world_size()
    if world < 2 or not input_dict:
        return input_dict
    names = sorted(input_dict)
    with torch.no_grad():
        values = torch.stack([input_dict[name].detach() for name in names])
        dist.all_reduce(values, "mean" if average else "sum")
    return dict(zip(names, values.unbind(), strict=True))
