"""Collectives without a process group; with one: test_two_processes.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fasttrain import dist
from fasttrain.dist.dist import _deal_in_turn


def test_tensors_pass_through() -> None:
    tensor = torch.tensor([1.0, 2.0])
    named = {"a": tensor}
    dist.all_reduce(tensor, "mean")
    dist.broadcast(tensor)
    dist.all_reduce_dict(named)
    dist.all_reduce_params([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert named["a"] is tensor
    assert dist.all_gather(tensor)[0] is tensor
    assert dist.gather(tensor)[0] is tensor
    with pytest.raises(AssertionError, match="should be a dict of tensors"):
        dist.all_reduce_dict([tensor])  # type: ignore[arg-type]


def test_objects_pass_through() -> None:
    objects = [1, "two"]
    dist.broadcast_object_list(objects)
    assert objects == [1, "two"]
    assert dist.all_gather_object("x") == ["x"]
    assert dist.gather_object("x") == ["x"]
    with pytest.raises(AssertionError, match="data should be a list of objects"):
        dist.broadcast_object_list((1,))  # type: ignore[arg-type]


def test_the_random_seed_follows_numpy() -> None:
    np.random.seed(3)
    seed = dist.sync_random_seed()
    np.random.seed(3)
    assert seed == dist.sync_random_seed() == int(np.random.RandomState(3).randint(2**31))
    assert 0 <= seed < 2**31


def test_results_are_cut_to_size() -> None:
    for device in ("cpu", "gpu", "npu"):
        assert dist.collect_results([1, 2, 3], 2, device) == [1, 2]
    with pytest.raises(NotImplementedError, match=r"device must be .*, but got tpu"):
        dist.collect_results([1], 1, "tpu")
    with pytest.raises(AssertionError, match="tmpdir should be None when device is gpu"):
        dist.collect_results([1], 1, "gpu", tmpdir="somewhere")


@pytest.mark.parametrize(
    ("parts", "size", "expected"),
    [
        ([[0, 2, 4], [1, 3, 5]], 6, [0, 1, 2, 3, 4, 5]),
        ([[0, 2, 4], [1, 3, 0]], 5, [0, 1, 2, 3, 4]),
        ([[0, 3], [1], [2]], 4, [0, 1, 2, 3]),
        ([[None], [None]], 2, [None, None]),
    ],
)
def test_parts_are_joined_as_samplers_deal_them(parts: list, size: int, expected: list) -> None:
    assert _deal_in_turn(parts, size) == expected
