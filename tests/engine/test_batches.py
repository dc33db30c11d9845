"""Endless batches: the next epoch's order, and what an empty loader is."""

from __future__ import annotations

import itertools

import pytest
from torch.utils.data import DataLoader, Sampler

from fasttrain.engine.batches import endless_batches


class Order(Sampler):
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> itertools.count:
        return iter([0, 1] if self.epochs[-1] % 2 == 0 else [1, 0])  # type: ignore[return-value]

    def __len__(self) -> int:
        return 2


def test_each_epoch_has_its_own_order() -> None:
    order = Order()
    batches = endless_batches(DataLoader([10, 11], sampler=order, batch_size=None), epoch=3)
    assert [next(batches) for _ in range(5)] == [11, 10, 10, 11, 11]
    assert order.epochs == [3, 4, 5]


def test_batches_may_be_none_and_loaders_plain_lists() -> None:
    assert list(itertools.islice(endless_batches([None, 1]), 5)) == [None, 1, None, 1, None]


def test_an_empty_loader_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"data loader is empty: .* batch_size with drop_last"):
        next(endless_batches([]))
