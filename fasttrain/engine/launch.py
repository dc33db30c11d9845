"""Start one training process per GPU, on one machine or on several."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
import torch.multiprocessing as mp

from fasttrain.core import dist
from fasttrain.engine import comm

logger = logging.getLogger("fasttrain.engine.launch")

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: Sequence[Any] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Run `main_func(*args)`, in one process per GPU when there is more than one in all.

    Without a GPU on the machine, the processes talk over Gloo.

    Args:
        main_func: a module-level function.
        num_gpus_per_machine: processes to start on this machine.
        num_machines: machines that take part, each of which calls `launch`.
        machine_rank: this machine's number, from 0.
        dist_url: where process 0 listens, `"tcp://host:port"` or `"file://path"`; `"auto"` finds
            a free port, on one machine only.
        args: what `main_func` gets.
        timeout: of the collectives.
    Raises:
        ValueError: counts that cannot be, more processes than GPUs, or a missing `dist_url`.
    """
    if num_gpus_per_machine < 0 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise ValueError(
            "expected num_gpus_per_machine >= 0, num_machines >= 1 and 0 <= machine_rank < "
            f"num_machines, got {num_gpus_per_machine}, {num_machines} and {machine_rank}"
        )
    available = torch.cuda.device_count()
    if available and num_gpus_per_machine > available:
        raise ValueError(
            f"num_gpus_per_machine={num_gpus_per_machine}, but this machine has {available} GPUs; "
            "lower it or check CUDA_VISIBLE_DEVICES"
        )
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    url = _resolve_url(dist_url, num_machines)
    mp.start_processes(
        _worker,
        args=(main_func, world_size, num_gpus_per_machine, machine_rank, url, args, timeout),
        nprocs=num_gpus_per_machine,
        start_method="spawn",
    )


def _resolve_url(dist_url: str | None, num_machines: int) -> str:
    if dist_url is None:
        raise ValueError(
            'several processes need a dist_url: "auto" on one machine, "tcp://host:port" on several'
        )
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError(
                f'dist_url="auto" is for one machine, got num_machines={num_machines}; '
                'give "tcp://host:port" of machine 0'
            )
        return f"tcp://127.0.0.1:{find_free_port()}"
    if num_machines > 1 and dist_url.startswith("file://"):
        logger.warning("file:// is not a reliable dist_url between machines; prefer tcp://")
    return dist_url


def find_free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    processes_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: Sequence[Any],
    timeout: timedelta,
) -> None:
    with_cuda = torch.cuda.is_available()
    rank = machine_rank * processes_per_machine + local_rank
    if with_cuda:
        torch.cuda.set_device(local_rank)
    try:
        torch_dist.init_process_group(
            "nccl" if with_cuda else "gloo",
            init_method=dist_url,
            world_size=world_size,
            rank=rank,
            timeout=timeout,
        )
    except Exception:
        logger.error("process group could not be made at %s", dist_url)
        raise
    try:
        comm.create_local_process_group(processes_per_machine)
        comm.synchronize()
        main_func(*args)
    finally:
        dist.leave()
