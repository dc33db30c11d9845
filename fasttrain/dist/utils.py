"""Who am I among the processes: launchers, ranks, groups, and where data lives."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed import ProcessGroup

from fasttrain.core import dist as core_dist

DEFAULT_PORT = "29500"

# Environment variable that a launcher sets -> the launcher, the most specific meaning first.
LAUNCHER_MARKS = {
    "WORLD_SIZE": "pytorch",
    "SLURM_NTASKS": "slurm",
    "OMPI_COMM_WORLD_LOCAL_RANK": "mpi",
}

_LOCAL_PROCESS_GROUP: ProcessGroup | None = None


def is_distributed() -> bool:
    """Whether a default process group exists."""
    return core_dist.is_initialized()


def get_local_group() -> ProcessGroup | None:
    """The group of the processes on this machine; None without a process group."""
    if not is_distributed():
        return None
    if _LOCAL_PROCESS_GROUP is None:
        raise RuntimeError(
            "Local process group is not created, please use `init_local_group` to setup local "
            "process group."
        )
    return _LOCAL_PROCESS_GROUP


def get_default_group() -> ProcessGroup | None:
    """The group of all processes; raises ValueError when there is none."""
    return torch_dist.distributed_c10d._get_default_group()


def infer_launcher() -> str:
    """The launcher that started this process, read from its environment; 'none' for a plain one."""
    for variable, launcher in LAUNCHER_MARKS.items():
        if variable in os.environ:
            return launcher
    return "none"


def init_dist(
    launcher: str, backend: str = "nccl", init_backend: str = "torch", **kwargs: Any
) -> None:
    """Create the default process group.

    Args:
        launcher: 'pytorch', 'mpi' or 'slurm'.
        backend: torch.distributed's backend.
        init_backend: 'torch' or 'deepspeed', which then sets up the group.
        kwargs: for `init_process_group`; `timeout` in seconds.
    """
    timeout = kwargs.get("timeout")
    if timeout is not None and not isinstance(timeout, timedelta):
        try:
            kwargs["timeout"] = timedelta(seconds=timeout)
        except TypeError as error:
            raise TypeError(
                "Timeout for distributed training must be provided as timeout in seconds, but "
                f"we've received the type {type(timeout)}. Please specify the timeout like this: "
                "dist_cfg=dict(backend='nccl', timeout=1800)"
            ) from error
    if mp.get_start_method(allow_none=True) is None:
        mp.set_start_method("spawn")
    if launcher == "pytorch":
        _init_dist_pytorch(backend, init_backend=init_backend, **kwargs)
    elif launcher == "mpi":
        _init_dist_mpi(backend, **kwargs)
    elif launcher == "slurm":
        _init_dist_slurm(backend, init_backend=init_backend, **kwargs)
    else:
        raise ValueError(f"Invalid launcher type: {launcher}")


def _bind_device(local_rank: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)


def _init_process_group(init_backend: str, backend: str, **kwargs: Any) -> None:
    """Create the group; rank and world size are in `kwargs` or in the environment."""
    if init_backend == "torch":
        torch_dist.init_process_group(backend=backend, **kwargs)
    elif init_backend == "deepspeed":
        import deepspeed

        deepspeed.init_distributed(dist_backend=backend, **kwargs)
    else:
        raise ValueError(
            f'supported "init_backend" is "torch" or "deepspeed", but got {init_backend}'
        )


def _init_dist_pytorch(backend: str, init_backend: str = "torch", **kwargs: Any) -> None:
    _bind_device(int(os.environ["LOCAL_RANK"]))
    _init_process_group(init_backend, backend, **kwargs)


def _init_dist_mpi(backend: str, **kwargs: Any) -> None:
    _bind_device(int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"]))
    os.environ.setdefault("MASTER_PORT", DEFAULT_PORT)
    if "MASTER_ADDR" not in os.environ:
        raise KeyError("The environment variable MASTER_ADDR is not set")
    os.environ["WORLD_SIZE"] = os.environ["OMPI_COMM_WORLD_SIZE"]
    os.environ["RANK"] = os.environ["OMPI_COMM_WORLD_RANK"]
    torch_dist.init_process_group(backend=backend, **kwargs)


def _init_dist_slurm(
    backend: str, port: int | str | None = None, init_backend: str = "torch", **kwargs: Any
) -> None:
    rank = os.environ["SLURM_PROCID"]
    world_size = os.environ["SLURM_NTASKS"]
    local_rank = os.environ.get("SLURM_LOCALID")
    if local_rank is None:
        local_rank = str(int(rank) % max(torch.cuda.device_count(), 1))
    if "MASTER_ADDR" not in os.environ:
        hosts = subprocess.check_output(
            ["scontrol", "show", "hostname", os.environ["SLURM_NODELIST"]], text=True
        )
        os.environ["MASTER_ADDR"] = hosts.split()[0]
    if port is not None:
        os.environ["MASTER_PORT"] = str(port)
    os.environ.setdefault("MASTER_PORT", DEFAULT_PORT)
    os.environ.update(WORLD_SIZE=world_size, RANK=rank, LOCAL_RANK=local_rank)
    _bind_device(int(local_rank))
    _init_process_group(init_backend, backend, **kwargs)


def init_local_group(node_rank: int, num_gpus_per_node: int) -> None:
    """Create the group of the processes of one machine; every process must call it.

    Args:
        node_rank: this machine's number.
        num_gpus_per_node: processes per machine.
    """
    global _LOCAL_PROCESS_GROUP
    first = node_rank * num_gpus_per_node
    _LOCAL_PROCESS_GROUP = torch_dist.new_group(list(range(first, first + num_gpus_per_node)))


def get_backend(group: ProcessGroup | None = None) -> str | None:
    """The backend's name; None without a process group."""
    return core_dist.backend(group)


def get_world_size(group: ProcessGroup | None = None) -> int:
    """The number of processes; 1 without a process group."""
    return core_dist.world_size(group)


def get_rank(group: ProcessGroup | None = None) -> int:
    """This process's number; 0 without a process group."""
    return core_dist.rank(group)


def get_local_size() -> int:
    """The number of processes on this machine; 1 without a process group."""
    group = get_local_group()
    return 1 if group is None else torch_dist.get_world_size(group)


def get_local_rank() -> int:
    """This process's number on its machine; 0 without a process group."""
    group = get_local_group()
    return 0 if group is None else torch_dist.get_rank(group)


def get_dist_info(group: ProcessGroup | None = None) -> tuple[int, int]:
    """Rank and world size."""
    return get_rank(group), get_world_size(group)


def is_main_process(group: ProcessGroup | None = None) -> bool:
    """Whether this is the process of rank 0."""
    return get_rank(group) == 0


def master_only(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate `func` to run on rank 0 only; elsewhere it returns None."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs) if is_main_process() else None

    return wrapper


def barrier(group: ProcessGroup | None = None) -> None:
    """Wait until every process of `group` is here."""
    core_dist.barrier(group)


def get_comm_device(group: ProcessGroup | None = None) -> torch.device:
    """The device on which the backend of `group` wants its tensors."""
    return core_dist.comm_device(group)


def get_data_device(data: Tensor | Mapping | Iterable) -> torch.device:
    """The one device of all tensors in nested `data`; mixed or no devices raise ValueError."""
    if isinstance(data, Tensor):
        return data.device
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise TypeError(f"data should be a Tensor, sequence of tensor or dict, but got {data}")
    devices = [
        get_data_device(item) for item in (data.values() if isinstance(data, Mapping) else data)
    ]
    if not devices:
        raise ValueError("data should not be empty.")
    for device in devices[1:]:
        if device != devices[0]:
            raise ValueError(
                f"device type in data should be consistent, but got {device} and {devices[0]}"
            )
    return devices[0]


def cast_data_device(
    data: Tensor | Mapping | Iterable,
    device: torch.device,
    out: Tensor | Mapping | Iterable | None = None,
) -> Any:
    """Move nested tensors to `device`, or copy them into those of `out`, which has their shape."""
    if out is not None and type(data) is not type(out):
        raise TypeError(
            "out should be the same type with data, but got data is "
            f"{type(data)} and out is {type(out)}"
        )
    if isinstance(data, Tensor):
        moved = data.to(device)
        if out is None:
            return moved
        with torch.no_grad():
            return out.copy_(moved)  # type: ignore[union-attr]
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise TypeError(f"data should be a Tensor, list of tensor or dict, but got {data}")
    keys = list(data) if isinstance(data, Mapping) else []
    sources: list[Any] = [data[key] for key in keys] if isinstance(data, Mapping) else list(data)
    if not sources:
        raise ValueError("data should not be empty")
    if out is None:
        targets: list[Any] = [None] * len(sources)
    else:
        targets = [out[key] for key in keys] if isinstance(out, Mapping) else list(out)  # type: ignore
    moved_items = [
        cast_data_device(source, device, target)
        for source, target in zip(sources, targets, strict=False)
    ]
    if isinstance(data, Mapping):
        return type(data)(zip(keys, moved_items, strict=True))  # type: ignore[call-arg]
    if hasattr(data, "_fields"):  # a namedtuple
        return type(data)(*moved_items)
    return type(data)(moved_items)  # type: ignore[call-arg]
