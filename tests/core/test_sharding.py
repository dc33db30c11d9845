"""Sharded tensors on a mesh of one process; on two: tests/runner/resume_two_processes.py."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from fasttrain.core import fused, sharding
from fasttrain.core.fused.clipping import total_norm
from fasttrain.core.fused.composed import all_finite
from support import assert_same


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_plain_tensors_stay_as_they_are():
    tensor = torch.ones(2)
    assert not sharding.is_sharded(tensor)
    assert sharding.whole(tensor) is tensor
    assert sharding.shard_like(tensor, torch.zeros(2)) is tensor
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    state = optimizer.state_dict()
    assert sharding.shard_optimizer_state(optimizer, state) is state


def test_whole_tensors_are_spread_as_their_targets(mesh):
    target = distribute_tensor(torch.zeros(4, 2), mesh, [Shard(0)])
    spread = sharding.shard_like(torch.arange(8.0).view(4, 2), target)
    assert sharding.is_sharded(spread) and spread.placements == target.placements
    assert_same(sharding.whole(spread), torch.arange(8.0).view(4, 2))
    assert sharding.help_gather(spread) is None
    assert sharding.shard_like(spread, target) is spread
    scalar = torch.tensor(3.0)  # such as a count of steps
    assert sharding.shard_like(scalar, target) is scalar


def test_weights_by_name(mesh):
    own = {"w": distribute_tensor(torch.zeros(2), mesh, [Shard(0)]), "b": torch.zeros(1)}
    found = sharding.shard_weights({"w": torch.ones(2), "b": torch.ones(1), "n": 3}, own)
    assert [sharding.is_sharded(value) for value in found.values()] == [True, False, False]
    assert found["n"] == 3


def test_an_optimizers_state_continues(mesh):
    def make(values: torch.Tensor, spread: bool) -> torch.optim.Optimizer:
        param = distribute_tensor(values, mesh, [Shard(0)]) if spread else values
        return fused.AdamW([nn.Parameter(param)], lr=0.1)

    def step(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        param = optimizer.param_groups[0]["params"][0]
        gradient = torch.tensor([0.5, -2.0])
        param.grad = sharding.shard_like(gradient, param)
        optimizer.step()
        return sharding.whole(param.detach()).clone()

    first = make(torch.ones(2), False)
    weights = step(first)
    second = make(weights, True)
    second.load_state_dict(
        sharding.shard_optimizer_state(second, copy.deepcopy(first.state_dict()))
    )
    entry = second.state[second.param_groups[0]["params"][0]]
    assert sharding.is_sharded(entry["exp_avg"]) and not sharding.is_sharded(entry["step"])
    torch.testing.assert_close(step(second), step(first))


def test_norms_and_checks_see_all_parts(mesh):
    values = [
        distribute_tensor(torch.tensor(entries), mesh, [Shard(0)])
        for entries in ([3.0, 0.0], [0.0, 4.0])
    ]
    norm = total_norm(values, 2.0)
    assert not sharding.is_sharded(norm) and norm.item() == pytest.approx(5.0)
    assert all_finite(values)
    assert not all_finite([values[0], values[1] / 0.0])
