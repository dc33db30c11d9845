"""Random numbers of dataloader workers that depend on the batch and not on the worker's past.

A worker's generators normally run on from batch to batch, so that a run resumed in the middle of
an epoch would have to load all batches again to bring them to where they were. Seeding them anew
for each batch makes a resumed run equal to an uninterrupted one; it also makes a run's random
numbers independent of the number of workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

MASK = 2**64 - 1


def mix(*parts: int) -> int:
    """A 64-bit number that depends on all parts (splitmix64 steps)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


class SeededFetch:
    """Stands in for a dataset's `__getitems__` in a worker: seeds, then fetches one batch."""

    def __init__(self, dataset: Any, base_seed: int, first: int, stride: int) -> None:
        self.dataset = dataset
        self.fetch: Callable[[Any], Any] | None = getattr(dataset, "__getitems__", None)
        self.base_seed = base_seed
        self.number = first
        self.stride = stride

    def __call__(self, indices: Any) -> Any:
        seed = mix(self.base_seed, self.number)
        self.number += self.stride
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        torch.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
        if self.fetch is not None:
            return self.fetch(indices)
        return [self.dataset[index] for index in indices]


class BatchSeededInit(partial):  # type: ignore[type-arg]
    """A worker's start function that also has each of its batches seeded by the batch's number.

    With persistent workers the numbers run on over the epochs; those workers start anew, at
    number 0, in a resumed run.

    Attributes:
        first_batch: number of the first batch of the pass.
        rank: rank of this process; ranks get different numbers.
    """

    first_batch: int = 0
    rank: int = 0

    def __call__(self, worker_id: int) -> None:
        super().__call__(worker_id)
        info = get_worker_info()
        if info is None:
            return
        fetch = SeededFetch(
            info.dataset,
            mix(info.seed - worker_id, self.rank),
            self.first_batch + worker_id,
            info.num_workers,
        )
        try:
            info.dataset.__getitems__ = fetch  # type: ignore[attr-defined]
        except AttributeError:
            return  # a list, a frozen object: its items draw no random numbers that we can seed


def starting_at(init: Any, first_batch: int) -> Any:
    """`init` for a pass that begins at batch `first_batch`."""
    if not isinstance(init, BatchSeededInit):
        return init
    moved = BatchSeededInit(init.func, *init.args, **init.keywords)
    moved.first_batch = first_batch
    moved.rank = init.rank
    return moved
