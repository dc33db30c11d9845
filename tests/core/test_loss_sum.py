"""Many losses are stacked; what cannot be is left to be added up."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fasttrain.core.loss_sum import ADD_UP_TO, add_up, stack_losses


def test_many_scalars_are_stacked() -> None:
    weights = torch.arange(1.0, 6.0, requires_grad=True)
    stacked = stack_losses(list(weights.unbind()))
    assert stacked is not None and stacked.tolist() == [1, 2, 3, 4, 5]
    (stacked.sum() * 2).backward()
    assert weights.grad is not None and weights.grad.tolist() == [2.0] * 5


def test_a_few_are_not() -> None:
    assert stack_losses([torch.ones(())] * ADD_UP_TO) is None
    assert stack_losses([]) is None


def test_mixed_precisions_become_the_widest() -> None:
    parts = [torch.ones((), dtype=dtype) for dtype in (torch.bfloat16, torch.float32)] * 3
    stacked = stack_losses(parts)
    assert stacked is not None and stacked.dtype is torch.float32


@pytest.mark.parametrize(
    "odd",
    [1.0, torch.ones(1), torch.ones(2), None, torch.ones((), device="meta")],
    ids=["number", "vector", "pair", "none", "device"],
)
def test_what_is_no_scalar_of_one_device_is_left(odd: Any) -> None:
    assert stack_losses([torch.ones(()), torch.ones(()), torch.ones(()), odd]) is None


def test_whole_numbers_are_left() -> None:
    assert stack_losses([torch.tensor(2**24 + i) for i in range(5)]) is None


@pytest.mark.parametrize("count", [1, 2, ADD_UP_TO, ADD_UP_TO + 1, 20])
def test_the_sum_and_its_gradients(count: int) -> None:
    weights = torch.arange(1.0, count + 1.0, requires_grad=True)
    total = add_up(list(weights.unbind()))
    assert total.shape == () and total.item() == count * (count + 1) / 2
    total.backward()
    assert weights.grad is not None and weights.grad.tolist() == [1.0] * count


def test_what_cannot_be_stacked_is_added() -> None:
    assert add_up([torch.ones(()), 2.0, torch.ones(2), 3, 4.0]).tolist() == [11.0, 11.0]
