"""core.dist without a process group; with one: tests/dist/test_two_processes.py."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from fasttrain.core import dist


def test_without_a_group_everything_is_the_identity() -> None:
    tensor = torch.tensor([1.5, -2.0])
    dist.all_reduce(tensor, "mean")
    dist.broadcast(tensor, src=0)
    dist.barrier()
    assert tensor.tolist() == [1.5, -2.0]
    assert not dist.is_initialized()
    assert (dist.rank(), dist.world_size(), dist.backend()) == (0, 1, None)
    assert dist.comm_device() == torch.device("cpu")
    value = object()
    assert dist.broadcast_object(value) is value
    assert dist.all_gather_object(value) == [value]
    dist.leave()


def test_reduce_op_takes_any_case_and_names_the_known_ones() -> None:
    assert dist.reduce_op("SUM") == torch.distributed.ReduceOp.SUM
    assert dist.reduce_op("max") == torch.distributed.ReduceOp.MAX
    with pytest.raises(ValueError, match=r"reduce op should be one of .*'sum'.*, but got median"):
        dist.reduce_op("median")


def test_a_copy_goes_through_the_collective_and_comes_back() -> None:
    strided = torch.arange(6.0).reshape(2, 3).t()
    seen: list[bool] = []

    def double(wire: torch.Tensor) -> None:
        seen.append(wire.is_contiguous())
        wire.mul_(2)

    dist.through_comm_device(strided, double)
    assert seen == [True]
    assert strided.tolist() == [[0.0, 6.0], [2.0, 8.0], [4.0, 10.0]]


def test_leaving_waits_for_the_threads_of_gloo(tmp_path: Path) -> None:
    """They free the last collective's tensors, which must not fall into the interpreter's end."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    group = weakref.ref(torch.distributed.group.WORLD)
    holder: list[object] = [torch.distributed.group.WORLD]
    holder.append(holder)  # as a wrapped model in a cycle of references
    dist.all_reduce(torch.ones(3))
    del holder
    dist.leave()
    assert not dist.is_initialized()
    assert group() is None
