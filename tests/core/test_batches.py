"""Passes that begin in the middle: same batches, same random numbers, nothing loaded twice."""

import multiprocessing
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from fasttrain.core.batches import Batches, Tail, set_sampler_epoch
from fasttrain.core.checkpoint import collect_rng_state, restore_rng_state
from fasttrain.core.worker_seed import BatchSeededInit
from support import assert_same


class Noisy(Dataset):
    """Items with random parts from every generator; counts what was loaded."""

    def __init__(self, length: int = 20) -> None:
        self.length = length
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        self.loaded.append(int(index))
        noise = torch.rand(2).tolist() + [random.random(), np.random.rand()]
        return torch.tensor([float(index), *noise])


def no_init(worker_id: int) -> None:
    return None


def make_loader(workers: int = 0, **options) -> DataLoader:
    init = BatchSeededInit(no_init) if workers else None
    options = {"batch_size": 2, "shuffle": True, **options}
    return DataLoader(Noisy(), num_workers=workers, worker_init_fn=init, **options)


def run_pass(batches: Batches, loader: DataLoader, first: int, stop: int | None = None) -> list:
    """Consume a pass like a training loop that draws random numbers too."""
    seen = []
    for number, batch in enumerate(batches.begin(loader, first), first):
        seen.append((batch, torch.rand(1)))
        if number + 1 == stop:
            break
    return seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own_generator", [False, True])
def test_a_pass_resumed_midway_equals_the_whole_one(workers: int, own_generator: bool) -> None:
    def loader() -> DataLoader:
        if not own_generator:
            return make_loader(workers)
        generator = torch.Generator().manual_seed(5)
        return make_loader(workers, generator=generator)

    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    whole, first = loader(), Batches()
    shown = run_pass(first, whole, 0)
    assert len(shown) == 10
    shown += run_pass(first, whole, 10)

    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    cut, second = loader(), Batches()
    run_pass(second, cut, 0, stop=4)
    position, now = second.position(cut, 4), collect_rng_state()
    second.close()

    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    fresh, third = loader(), Batches()
    third.seek(position)
    restore_rng_state(now)
    again = run_pass(third, fresh, 4)
    again += run_pass(third, fresh, 10)
    assert third.skipped == 0
    assert_same(again, shown[4:])


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("cut", [4, 10, 14, 20])
def test_workers_that_persist_leave_no_trace(own_generator: bool, cut: int) -> None:
    def loader() -> DataLoader:
        generator = torch.Generator().manual_seed(5) if own_generator else None
        return make_loader(2, persistent_workers=True, generator=generator)

    def run_to(batches: Batches, loader: DataLoader, first: int, last: int) -> list:
        seen, start = [], first
        while first < last:
            seen += run_pass(batches, loader, first, stop=last)
            first = start + len(seen)
        batches.close()
        return seen

    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    shown = run_to(Batches(), loader(), 0, 30)
    noise = [batch[:, 1:] for batch, _ in shown]
    assert len(torch.cat(noise).unique()) == 30 * 2 * 4

    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    old, cut_loader = Batches(), loader()
    run_to(old, cut_loader, 0, cut)
    position, now = old.position(cut_loader, cut), collect_rng_state()
    generator = None if not own_generator else cut_loader.generator.get_state()

    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    fresh, resumed = loader(), Batches()
    resumed.seek(position)
    restore_rng_state(now)
    if own_generator:
        fresh.generator.set_state(generator)
    assert_same(run_to(resumed, fresh, cut, 30), shown[cut:])


def test_skipping_loads_nothing() -> None:
    loader, batches = make_loader(shuffle=False), Batches()
    batches.seek({"passes": 0, "consumed": 7})
    seen = list(batches.begin(loader, 7))
    assert batches.skipped == 7
    assert len(seen) == 3
    assert loader.dataset.loaded == [14, 15, 16, 17, 18, 19]


def test_without_batches_the_sampler_is_skipped() -> None:
    loader, batches = DataLoader(Noisy(5), batch_size=None), Batches()
    batches.seek({"consumed": 3})
    assert [int(item[0]) for item in batches.begin(loader, 3)] == [3, 4]
    assert loader.dataset.loaded == [3, 4]


def test_rolling_over_several_passes() -> None:
    loader, batches = make_loader(shuffle=False), Batches()
    batches.seek({"consumed": 23})
    seen = [int(batch[0, 0]) for batch in batches.begin(loader, 23, roll_over=True)]
    assert batches.passes == 2
    assert batches.skipped == 3
    assert seen == [6, 8, 10, 12, 14, 16, 18]
    assert batches.next_iter == 30


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


@pytest.mark.parametrize("consumed", [3, 13])
def test_unknown_loaders_are_replayed(consumed: int) -> None:
    loader, batches = DataLoader(Stream(), batch_size=None), Batches()
    batches.seek({"consumed": consumed})
    assert list(batches.begin(loader, consumed, roll_over=True)) == list(range(3, 10))
    assert batches.passes == consumed // 10


class WithState:
    """A loader that keeps its own position, as torchdata's does."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self):
        while self.at < 6:
            self.at += 1
            yield self.at
        self.at = 0

    def state_dict(self) -> dict:
        return {"at": self.at}

    def load_state_dict(self, state: dict) -> None:
        self.at = state["at"]


def test_a_loader_with_state_is_asked_for_it() -> None:
    loader, batches = WithState(), Batches()
    iterator = batches.begin(loader, 0)
    assert [next(iterator), next(iterator)] == [1, 2]
    position = batches.position(loader, 2)
    assert position["loader"] == {"at": 2}
    fresh, other = WithState(), Batches()
    other.seek(position)
    assert list(other.begin(fresh, 2)) == [3, 4, 5, 6]


def test_position_between_passes_is_a_start() -> None:
    loader, batches = make_loader(), Batches()
    run_pass(batches, loader, 0)
    assert not batches.running
    assert batches.position(loader, 10) == {"passes": 0, "consumed": 0}


@pytest.mark.parametrize("persist", [False, True])
def test_closing_ends_the_workers_at_once(persist: bool) -> None:
    batches = Batches()
    iterator = batches.begin(make_loader(2, persistent_workers=persist), 0)
    next(iterator)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    batches.close()
    assert [worker.is_alive() for worker in workers] == [False, False]
    assert list(iterator) == []


def test_an_error_of_the_loader_is_marked() -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int):
            raise OSError("no such file")

    batches = Batches()
    with pytest.raises(OSError, match="no such file"):
        list(batches.begin(DataLoader(Broken()), 0))
    assert batches.failed_while_fetching


def test_tail_of_a_sampler() -> None:
    tail = Tail(RandomSampler(range(10), generator=torch.Generator().manual_seed(1)), 4)
    whole = list(RandomSampler(range(10), generator=torch.Generator().manual_seed(1)))
    assert len(tail) == 6
    assert list(tail) == whole[4:]


def test_set_sampler_epoch_finds_the_sampler() -> None:
    class Sampler:
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    class Holder:
        pass

    direct, inside = Holder(), Holder()
    direct.sampler = Sampler()
    set_sampler_epoch(direct, 3)
    assert direct.sampler.epoch == 3
    inside.batch_sampler = Holder()
    inside.batch_sampler.sampler = Sampler()
    set_sampler_epoch(inside, 4)
    assert inside.batch_sampler.sampler.epoch == 4
    set_sampler_epoch(Holder(), 5)
