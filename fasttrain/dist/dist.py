"""Collectives on tensors, dicts of tensors, objects and result lists."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Generator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as torch_dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _take_tensors, _unflatten_dense_tensors
from torch.distributed import ProcessGroup

from fasttrain.core import dist as core_dist
from fasttrain.core.dist import broadcast_object
from fasttrain.core.dist import reduce_op as _get_reduce_op  # noqa: F401  known under this name
from fasttrain.dist.utils import (
    barrier,
    cast_data_device,
    get_comm_device,
    get_dist_info,
    get_world_size,
)

MEBIBYTE = 1024 * 1024
COLLECT_DEVICES = ("cpu", "gpu", "npu")
_ABSENT = object()


def all_reduce(data: Tensor, op: str = "sum", group: ProcessGroup | None = None) -> None:
    """Reduce `data` in place over all processes; `op` may be 'mean' too."""
    core_dist.all_reduce(data, op, group)


def all_gather(data: Tensor, group: ProcessGroup | None = None) -> list[Tensor]:
    """Every process's `data` (equal shapes), in the order of ranks, on the device of `data`."""
    size = get_world_size(group)
    if size == 1:
        return [data]
    wire = data.to(get_comm_device(group)).contiguous()
    gathered = [torch.empty_like(wire) for _ in range(size)]
    torch_dist.all_gather(gathered, wire, group)
    return cast_data_device(gathered, data.device)


def gather(data: Tensor, dst: int = 0, group: ProcessGroup | None = None) -> list[Tensor | None]:
    """Every process's `data` on the process `dst`, an empty list elsewhere."""
    rank, size = get_dist_info(group)
    if size == 1:
        return [data]
    wire = data.to(get_comm_device(group)).contiguous()
    gathered = [torch.empty_like(wire) for _ in range(size)] if rank == dst else None
    torch_dist.gather(wire, gathered, dst, group)
    return [] if gathered is None else cast_data_device(gathered, data.device)


def broadcast(data: Tensor, src: int = 0, group: ProcessGroup | None = None) -> None:
    """Overwrite `data` in place with that of the process `src`."""
    core_dist.broadcast(data, src, group)


def sync_random_seed(group: ProcessGroup | None = None) -> int:
    """A random seed in [0, 2**31) that all processes agree on."""
    seed = torch.tensor(np.random.randint(2**31))
    core_dist.broadcast(seed, group=group)
    return int(seed)


def broadcast_object_list(data: list[Any], src: int = 0, group: ProcessGroup | None = None) -> None:
    """Overwrite the entries of `data` in place with those of the process `src`."""
    assert isinstance(data, list), f"data should be a list of objects, but got {type(data)}"
    if get_world_size(group) > 1:
        torch_dist.broadcast_object_list(data, src, group)


def all_reduce_dict(
    data: dict[str, Tensor], op: str = "sum", group: ProcessGroup | None = None
) -> None:
    """Reduce the tensors of `data` in place, in one collective; the keys must agree."""
    assert isinstance(data, dict), f"data should be a dict of tensors, but got {type(data)}"
    if get_world_size(group) == 1 or not data:
        return
    names = sorted(data)
    device = get_comm_device(group)
    flat = torch.cat([data[name].detach().to(device).flatten() for name in names])
    core_dist.all_reduce(flat, op, group)
    parts = flat.split([data[name].numel() for name in names])
    for name, part in zip(names, parts, strict=True):
        data[name] = part.view_as(data[name]).to(data[name].device)


def all_gather_object(data: Any, group: ProcessGroup | None = None) -> list[Any]:
    """Every process's `data` (any object that pickles), in the order of ranks."""
    return core_dist.all_gather_object(data, group)


def gather_object(data: Any, dst: int = 0, group: ProcessGroup | None = None) -> list[Any] | None:
    """Every process's `data` on the process `dst`, None elsewhere."""
    rank, size = get_dist_info(group)
    if size == 1:
        return [data]
    gathered = [None] * size if rank == dst else None
    torch_dist.gather_object(data, gathered, dst, group)
    return gathered


def collect_results(
    results: list, size: int, device: str = "cpu", tmpdir: str | None = None
) -> list | None:
    """Join the parts of a result list that the processes hold, as a sampler dealt them out.

    Args:
        results: this process's part.
        size: length of the whole; what the sampler padded beyond it is cut.
        device: 'cpu' gathers through files or CPU memory, 'gpu' through the backend.
        tmpdir: only for 'cpu': a folder that all processes see.
    Returns:
        the whole list on rank 0, None elsewhere.
    """
    if device not in COLLECT_DEVICES:
        raise NotImplementedError(f"device must be 'cpu' , 'gpu' or 'npu', but got {device}")
    if device == "cpu":
        return collect_results_cpu(results, size, tmpdir)
    assert tmpdir is None, f"tmpdir should be None when device is {device}"
    return collect_results_gpu(results, size)


def _deal_in_turn(parts: list[list], size: int) -> list:
    """Undo a sampler that gave rank r the samples r, r + world, r + 2 * world, ..."""
    dealt = chain.from_iterable(zip_longest(*parts, fillvalue=_ABSENT))
    return [result for result in dealt if result is not _ABSENT][:size]


def collect_results_cpu(result_part: list, size: int, tmpdir: str | None = None) -> list | None:
    """`collect_results` through files in `tmpdir`, by default a fresh folder under .dist_test."""
    rank, world_size = get_dist_info()
    if world_size == 1:
        return result_part[:size]
    if rank == 0 and tmpdir is None:
        Path(".dist_test").mkdir(exist_ok=True)
        tmpdir = tempfile.mkdtemp(dir=".dist_test")
    folder = Path(broadcast_object(tmpdir))  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"part_{index}.pkl" for index in range(world_size)]
    files[rank].write_bytes(pickle.dumps(result_part, protocol=pickle.HIGHEST_PROTOCOL))
    barrier()
    if rank != 0:
        return None
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise FileNotFoundError(
            f"{missing} are not there for rank 0; every process must see the folder. Please set "
            "'collect_dir' (or `tmpdir`) to a folder on a shared file system."
        )
    parts = [pickle.loads(file.read_bytes()) for file in files]  # our own processes wrote them
    shutil.rmtree(folder)
    return _deal_in_turn(parts, size)


def collect_results_gpu(result_part: list, size: int) -> list | None:
    """`collect_results` through the backend."""
    rank, world_size = get_dist_info()
    if world_size == 1:
        return result_part[:size]
    parts = all_gather_object(result_part)
    return _deal_in_turn(parts, size) if rank == 0 else None


def all_reduce_params(
    params: list[Tensor] | Generator[Tensor, None, None],
    coalesce: bool = True,
    bucket_size_mb: int = -1,
    op: str = "sum",
    group: ProcessGroup | None = None,
) -> None:
    """Reduce parameters or buffers in place.

    Args:
        params: the tensors.
        coalesce: join them into few collectives.
        bucket_size_mb: with `coalesce`, the size of one; -1 for one per type.
        op: as in `all_reduce`.
        group: None for the default group.
    """
    if get_world_size(group) == 1:
        return
    tensors = [param.detach() for param in params]
    if not coalesce:
        for tensor in tensors:
            all_reduce(tensor, op, group)
        return
    bytes_per_bucket = bucket_size_mb * MEBIBYTE if bucket_size_mb > 0 else 2**62
    for bucket in _take_tensors(tensors, bytes_per_bucket):
        flat = _flatten_dense_tensors(bucket)
        all_reduce(flat, op, group)
        for tensor, synced in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
            tensor.copy_(synced)
