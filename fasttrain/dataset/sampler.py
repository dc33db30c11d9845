"""Samplers: which samples this process draws, in which order, also from the middle of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Sampler

from fasttrain.dist import get_dist_info, sync_random_seed
from fasttrain.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class DefaultSampler(Sampler[int]):
    """Each epoch once through the dataset, dealt out to the processes in turn.

    Args:
        dataset: what is sampled.
        shuffle: a new order every epoch.
        seed: of the order, the same on every process; None lets the processes agree on one.
        round_up: give every process equally many samples, the first ones a second time.
    """

    def __init__(
        self, dataset: Sized, shuffle: bool = True, seed: int | None = None, round_up: bool = True
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.round_up = round_up
        size = len(dataset)
        if round_up:
            self.num_samples = math.ceil(size / self.world_size)
            self.total_size = self.num_samples * self.world_size
        else:
            self.num_samples = math.ceil((size - self.rank) / self.world_size)
            self.total_size = size
        self._start = 0

    def __iter__(self) -> Iterator[int]:
        start, self._start = self._start, 0
        size = len(self.dataset)
        if self.shuffle:
            generator = torch.Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = torch.randperm(size, generator=generator)
        else:
            order = torch.arange(size)
        if 0 < size < self.total_size:
            order = order.repeat(self.total_size // size + 1)
        mine = order[self.rank : self.total_size : self.world_size]
        return iter(mine[start:].tolist())

    def __len__(self) -> int:
        """Samples of this process in a whole epoch."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of epoch `epoch`; a pending `skip` stays."""
        self.epoch = epoch

    def skip(self, num_samples: int) -> None:
        """Leave out the first `num_samples` of this process in the next iteration only."""
        self._start = num_samples

    def state_dict(self) -> dict[str, Any]:
        """What determines the order; how far a loader has read is for its loop to know."""
        return {"seed": self.seed, "epoch": self.epoch, "start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the order of a saved run."""
        self.seed = state_dict["seed"]
        self.epoch = state_dict["epoch"]
        self._start = state_dict["start"]


@DATA_SAMPLERS.register_module()
class InfiniteSampler(Sampler[int]):
    """An endless stream: one pass after the other, dealt out to the processes in turn.

    Iterating again goes on where the last iterator stopped.

    Args:
        dataset: what is sampled.
        shuffle: a new order every pass.
        seed: of the stream, the same on every process; None lets the processes agree on one.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.size = len(dataset)
        self.indices = self._indices_of_rank()

    def _infinite_indices(self) -> Iterator[int]:
        """The stream of all processes."""
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        while self.size:
            if self.shuffle:
                yield from torch.randperm(self.size, generator=generator).tolist()
            else:
                yield from range(self.size)

    def _indices_of_rank(self) -> Iterator[int]:
        """This process's part of the stream."""
        yield from islice(self._infinite_indices(), self.rank, None, self.world_size)

    def __iter__(self) -> Iterator[int]:
        return islice(self.indices, None)  # dropping this one does not end the stream

    def __len__(self) -> int:
        """The size of the dataset."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the stream knows no epochs."""

    def skip(self, num_samples: int) -> None:
        """Drop the next `num_samples` of this process from the stream."""
        next(islice(self.indices, num_samples, num_samples), None)

    def state_dict(self) -> dict[str, Any]:
        """What determines the stream; how far a loader has read is for its loop to know."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin a saved run's stream from its start; `skip` goes to a position in it."""
        self.seed = state_dict["seed"]
        self.indices = self._indices_of_rank()
