"""Random numbers of workers depend on the batch alone."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fasttrain.core.worker_seed import BatchSeededInit, mix, starting_at


class Random(Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(())


class Batched(Random):
    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [torch.rand(()) + 10 for _ in indices]


def init(worker_id: int, offset: int = 0) -> None:
    return None


def draw(dataset: Dataset, workers: int, rank: int = 0, seed: int = 0) -> torch.Tensor:
    start = BatchSeededInit(init, offset=1)
    start.rank = rank
    torch.manual_seed(seed)
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, worker_init_fn=start)
    return torch.stack(list(loader))


def test_numbers_do_not_depend_on_the_number_of_workers() -> None:
    assert torch.equal(draw(Random(), 1), draw(Random(), 2))


@pytest.mark.parametrize("change", [{"rank": 1}, {"seed": 1}])
def test_numbers_depend_on_rank_and_seed(change: dict) -> None:
    assert not torch.equal(draw(Random(), 1), draw(Random(), 1, **change))


def test_batches_differ() -> None:
    assert len(draw(Random(), 2).flatten().unique()) == 12


def test_a_dataset_that_fetches_batches_still_does() -> None:
    assert draw(Batched(), 1).min() >= 10


def test_a_list_as_dataset_works() -> None:
    loader = DataLoader([1, 2, 3], num_workers=1, worker_init_fn=BatchSeededInit(init))
    assert torch.cat(list(loader)).tolist() == [1, 2, 3]


def test_starting_at_moves_only_our_own() -> None:
    start = BatchSeededInit(init, offset=1)
    start.rank = 2
    moved = starting_at(start, 5)
    assert (moved.first_batch, moved.rank, moved.func, moved.keywords) == (
        5,
        2,
        init,
        {"offset": 1},
    )
    assert start.first_batch == 0
    assert starting_at(init, 5) is init
    assert starting_at(None, 5) is None


def test_pickles_for_spawned_workers() -> None:
    start = BatchSeededInit(init, offset=1)
    start.rank, start.first_batch = 3, 4
    copy = pickle.loads(pickle.dumps(start))
    assert (copy.rank, copy.first_batch, copy.func) == (3, 4, init)


def test_mix_spreads() -> None:
    values = {mix(seed, number) for seed in range(20) for number in range(50)}
    assert len(values) == 1000
    assert all(0 <= value < 2**64 for value in values)


def test_workers_that_persist_are_told_of_each_pass() -> None:
    def two_passes(seeds: list[int], rank: int = 0) -> list[torch.Tensor]:
        start = BatchSeededInit(init)
        start.rank = rank
        loader = DataLoader(
            Random(), 3, num_workers=2, worker_init_fn=start, persistent_workers=True
        )
        drawn = []
        for seed in seeds:
            start.begin_pass(seed, 0)
            drawn.append(torch.stack(list(loader)))
        loader._iterator._shutdown_workers()
        return drawn

    first, second = two_passes([1, 2])
    assert len(torch.cat([first, second]).unique()) == 24
    torch.manual_seed(9)
    again, _ = two_passes([2, 3])
    assert torch.equal(again, second)
    assert not torch.equal(two_passes([2, 3], rank=1)[0], again)
