"""The order of samples, its parts per process, and continuing in the middle."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from fasttrain.dataset import DefaultSampler, InfiniteSampler, sampler
from fasttrain.registry import DATA_SAMPLERS
from support import check_save_and_resume


def permutation(size: int, seed: int) -> list[int]:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    def pretend(rank: int, size: int) -> None:
        monkeypatch.setattr(sampler, "get_dist_info", lambda: (rank, size))

    return pretend


def test_an_epoch_is_one_permutation_by_seed_and_epoch() -> None:
    drawn = DefaultSampler(range(7), seed=3)
    assert list(drawn) == permutation(7, 3)
    drawn.set_epoch(2)
    assert list(drawn) == permutation(7, 5) == [1, 0, 4, 2, 6, 5, 3]
    assert len(drawn) == 7
    assert list(DefaultSampler(range(4), shuffle=False)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("size", "processes"), [(7, 2), (7, 3), (1, 3), (2, 5), (6, 3)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_an_epoch(world: Any, size: int, processes: int, shuffle: bool) -> None:
    order = permutation(size, 3) if shuffle else list(range(size))
    padded = (order * processes * 2)[: -(-size // processes) * processes]
    for rank in range(processes):
        world(rank, processes)
        even = DefaultSampler(range(size), shuffle, seed=3)
        assert list(even) == padded[rank::processes]
        assert len(even) == len(padded) // processes
        cut = DefaultSampler(range(size), shuffle, seed=3, round_up=False)
        assert list(cut) == order[rank::processes]
        assert len(cut) == len(order[rank::processes])


def test_an_empty_dataset_gives_nothing() -> None:
    assert list(DefaultSampler([])) == []
    assert list(InfiniteSampler([])) == []


def test_a_seed_is_agreed_on_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "sync_random_seed", lambda: 11)
    assert DefaultSampler(range(3)).seed == InfiniteSampler(range(3)).seed == 11
    assert DefaultSampler(range(3), seed=0).seed == 0


def test_a_stream_runs_through_pass_after_pass(world: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    stream = [i for _ in range(4) for i in torch.randperm(5, generator=generator).tolist()]
    for rank in range(3):
        world(rank, 3)
        drawn = list(islice(InfiniteSampler(range(5), seed=3), 6))
        assert drawn == stream[rank::3][:6]
    plain = InfiniteSampler(range(3), shuffle=False)
    plain.set_epoch(1)
    assert len(plain) == 3
    world(1, 2)
    assert list(islice(InfiniteSampler(range(3), shuffle=False), 4)) == [1, 0, 2, 1]


def test_iterating_again_goes_on() -> None:
    whole = list(islice(InfiniteSampler(range(5), seed=3), 8))
    drawn = InfiniteSampler(range(5), seed=3)
    assert list(islice(drawn, 3)) + list(islice(drawn, 5)) == whole


def test_skipping_leaves_out_the_first_samples_once() -> None:
    drawn = DefaultSampler(range(7), seed=3)
    drawn.skip(3)
    assert len(drawn) == 7
    assert list(drawn) == permutation(7, 3)[3:]
    assert list(drawn) == permutation(7, 3)
    drawn.skip(3)
    drawn.set_epoch(1)
    assert list(drawn) == permutation(7, 4)[3:]


def test_skipping_in_a_stream() -> None:
    whole = list(islice(InfiniteSampler(range(5), seed=3), 20))
    drawn = InfiniteSampler(range(5), seed=3)
    drawn.skip(13)
    assert list(islice(drawn, 7)) == whole[13:]


@pytest.mark.parametrize("kind", [DefaultSampler, InfiniteSampler])
def test_a_fresh_sampler_continues_a_saved_one(kind: Any) -> None:
    """Nine batches of two, over epochs of three; the loop, not the sampler, counts batches."""
    seeds = iter([5, 6, 7, 8])

    class Loop:
        def __init__(self) -> None:
            self.sampler = kind(range(6), seed=next(seeds))
            self.batches = 0
            self.iterator: Any = None

        def state_dict(self) -> dict[str, Any]:
            return {"sampler": self.sampler.state_dict(), "batches": self.batches}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.batches = state["batches"]
            self.sampler.load_state_dict(state["sampler"])
            within = self.batches % 3 if kind is DefaultSampler else self.batches
            self.sampler.skip(2 * within)

    def advance(loop: Loop, step: int) -> list[int]:
        if loop.iterator is None or (kind is DefaultSampler and step % 3 == 0):
            loop.sampler.set_epoch(step // 3)
            loop.iterator = iter(loop.sampler)
        loop.batches += 1
        return list(islice(loop.iterator, 2))

    check_save_and_resume(Loop, advance, steps=9, cut=4)


def test_samplers_are_registered() -> None:
    built = DATA_SAMPLERS.build(dict(type="DefaultSampler", dataset=range(3), shuffle=False))
    assert list(built) == [0, 1, 2]
    assert DATA_SAMPLERS.get("InfiniteSampler") is InfiniteSampler
