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
from torch import Tensor
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
    """Stands in for a dataset's `__getitems__` in a worker: seeds, then fetches one batch.

    Args:
        dataset: of the worker.
        worker: number of the worker.
        stride: number of workers, which take the batches in turn.
        seed: of the pass.
        first_batch: number of the first batch of the pass.
        rank: rank of the process that the worker serves.
        board: shape [3], int64, where the main process tells a worker that lives on about each
            pass: how many there were, its seed and its first batch; None when it serves one pass.
    """

    def __init__(
        self,
        dataset: Any,
        worker: int,
        stride: int,
        *,
        seed: int,
        first_batch: int,
        rank: int,
        board: Tensor | None,
    ) -> None:
        self.dataset = dataset
        self.fetch: Callable[[Any], Any] | None = getattr(dataset, "__getitems__", None)
        self.worker = worker
        self.stride = stride
        self.rank = rank
        self.board = board
        self.passes = 0
        self._enter_pass(seed, first_batch)

    def __call__(self, indices: Any) -> Any:
        if self.board is not None and int(self.board[0]) != self.passes:
            self.passes, seed, first_batch = (int(value) for value in self.board)
            self._enter_pass(seed, first_batch)
        seed = mix(self.base_seed, self.number)
        self.number += self.stride
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        torch.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
        if self.fetch is not None:
            return self.fetch(indices)
        return [self.dataset[index] for index in indices]

    def _enter_pass(self, seed: int, first_batch: int) -> None:
        self.base_seed = mix(seed, self.rank)
        self.number = first_batch + self.worker


class BatchSeededInit(partial):  # type: ignore[type-arg]
    """A worker's start function that also has each of its batches seeded by the batch's number.

    Attributes:
        first_batch: number of the first batch of the pass.
        rank: rank of this process; ranks get different numbers.
        board: set by `begin_pass`; see `SeededFetch`.
    """

    first_batch: int = 0
    rank: int = 0
    board: Tensor | None = None

    def begin_pass(self, seed: int, first_batch: int) -> None:
        """Tell workers that persist about the next pass, before it begins."""
        if self.board is None:
            self.board = torch.zeros(3, dtype=torch.int64)
            self.board.share_memory_()  # type: ignore[no-untyped-call]
        self.board[1], self.board[2] = seed & 0x7FFFFFFFFFFFFFFF, first_batch
        self.board[0] += 1

    def __call__(self, worker_id: int) -> None:
        super().__call__(worker_id)
        info = get_worker_info()
        if info is None:
            return
        fetch = SeededFetch(
            info.dataset,
            worker_id,
            info.num_workers,
            seed=info.seed - worker_id,
            first_batch=self.first_batch,
            rank=self.rank,
            board=self.board,
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
    moved.board = init.board
    return moved
