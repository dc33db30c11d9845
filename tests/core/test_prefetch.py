"""The prefetcher: the same batches in the same order, on the device."""

from collections import namedtuple

import pytest
import torch

from fasttrain.core.prefetch import Prefetcher, move

Pair = namedtuple("Pair", ["left", "right"])


def test_on_the_cpu_batches_pass_through_untouched() -> None:
    batches = [{"a": torch.ones(2)}, object()]
    assert [x is y for x, y in zip(Prefetcher(batches, "cpu"), batches, strict=True)] == [True] * 2


def test_move_keeps_the_structure() -> None:
    sample = object()
    value = {"a": [torch.ones(2), sample], "b": (Pair(torch.zeros(1), "text"),)}
    moved = move(value, torch.device("cpu"))
    assert torch.equal(moved["a"][0], torch.ones(2))
    assert moved["a"][1] is sample
    assert isinstance(moved["b"][0], Pair)
    assert moved["b"][0].right == "text"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_batches_arrive_in_order() -> None:
    batches = [{"x": torch.full((1000,), float(i)).pin_memory()} for i in range(20)]
    total = []
    for batch in Prefetcher(iter(batches), "cuda"):
        assert batch["x"].is_cuda
        total.append(batch["x"].sum())
    assert [value.item() / 1000 for value in total] == [float(i) for i in range(20)]
