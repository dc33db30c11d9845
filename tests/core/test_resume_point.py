"""A pass resumed with another batch size, dataset or number of processes leaves no sample out."""

import logging

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from fasttrain.core import dist
from fasttrain.core.batches import Batches
from fasttrain.core.resume_point import DataShape, resume_point
from fasttrain.dataset import DefaultSampler


def loader_of(length: int = 20, batch_size: int = 3, **options) -> DataLoader:
    return DataLoader(range(length), batch_size=batch_size, **options)


def consume(loader: DataLoader, position: dict | None, count: int | None) -> tuple[list, dict]:
    """Samples of the next `count` batches, their numbers and the position behind them."""
    batches = Batches()
    first = 0 if position is None else position["consumed"]
    if position is not None:
        batches.seek(position)
    seen, iter_ = [], first
    for number, batch in enumerate(batches.begin(loader, first), batches.skipped):
        seen.append((number, batch.tolist()))
        iter_ += 1
        if len(seen) == count:
            break
    return seen, batches.position(loader, iter_)


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "expected"),
    [
        (2, False, [(6, [12, 13]), (7, [14, 15]), (8, [16, 17]), (9, [18, 19])]),
        (5, False, [(2, [12, 13, 14, 15, 16]), (3, [17, 18, 19])]),
        (5, True, [(3, [12, 13, 14, 15, 16])]),
        (8, False, [(2, list(range(12, 20)))]),
        (16, False, [(1, list(range(12, 20)))]),
        (100, False, [(0, list(range(12, 20)))]),
    ],
)
def test_another_batch_size_goes_on_at_the_next_sample(
    batch_size: int, drop_last: bool, expected: list, caplog: pytest.LogCaptureFixture
) -> None:
    _, position = consume(loader_of(), None, 4)
    assert position["samples"] == 12
    with caplog.at_level(logging.INFO, "fasttrain"):
        seen, _ = consume(loader_of(batch_size=batch_size, drop_last=drop_last), position, None)
    assert seen == expected
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert (
        f"Resuming in the middle of a pass with batch size {batch_size} instead of 3: it goes on "
        "behind the 12 samples that were done." in caplog.text
    )


def test_a_pass_that_was_resumed_so_is_resumed_again() -> None:
    _, first = consume(loader_of(), None, 4)
    _, second = consume(loader_of(batch_size=5), first, 1)
    assert (second["samples"], second["shape"]["batch_size"]) == (17, 5)
    assert consume(loader_of(batch_size=5), second, None)[0] == [(3, [17, 18, 19])]
    _, third = consume(loader_of(batch_size=2), second, 1)
    assert consume(loader_of(batch_size=2), third, None)[0] == [(9, [19])]


def test_a_shuffled_order_stays_the_same() -> None:
    def shuffled(batch_size: int) -> DataLoader:
        return loader_of(batch_size=batch_size, shuffle=True)

    torch.manual_seed(3)
    whole = [sample for batch in shuffled(3) for sample in batch.tolist()]
    torch.manual_seed(3)
    _, position = consume(shuffled(3), None, 4)
    torch.manual_seed(99)
    rest, _ = consume(shuffled(4), position, None)
    assert [sample for _, batch in rest for sample in batch] == whole[12:]


class Pairs(BatchSampler):
    """A batch sampler with an idea of its own."""


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(20))


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (loader_of(), loader_of(length=22), "length of the dataset 22 instead of 20"),
        (
            DataLoader(range(20), batch_sampler=Pairs(range(20), 3, False)),
            DataLoader(range(20), batch_sampler=Pairs(range(20), 4, False)),
            "batch size 4 instead of 3: Pairs forms batches of its own",
        ),
        (
            DataLoader(Stream(), batch_size=3),
            DataLoader(Stream(), batch_size=4),
            "batch size 4 instead of 3: DataLoader forms batches of its own",
        ),
    ],
)
def test_what_cannot_be_counted_begins_anew(
    before: DataLoader, after: DataLoader, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, position = consume(before, None, 2)
    seen, _ = consume(after, position, 1)
    assert seen == [(0, list(range(after.batch_size or 4)))]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert text in caplog.text
    assert "this pass over the data begins anew and the 2 batches that were done" in caplog.text


def test_the_same_shape_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for make in (loader_of, lambda: DataLoader(range(20), batch_sampler=Pairs(range(20), 3, True))):
        _, position = consume(make(), None, 2)
        assert consume(make(), position, 1)[0] == [(2, [6, 7, 8])]
    assert not caplog.records


def test_a_position_without_a_shape_is_taken_as_it_is() -> None:
    point = resume_point({"consumed": 4}, loader_of())
    assert (point.batches, point.samples, point.note) == (4, None, "")


@pytest.mark.parametrize("kind", [DefaultSampler, DistributedSampler])
@pytest.mark.parametrize(
    ("world_size", "mine", "again"), [(1, 12, 0), (3, 4, 0), (4, 3, 0), (5, 2, 2)]
)
def test_another_number_of_processes(
    kind: type, world_size: int, mine: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes have done two batches of 3 each: 12 samples."""
    target = {
        "consumed": 2,
        "samples": 6,
        "shape": {"batch_size": 3, "world_size": 2, "length": 20},
    }
    monkeypatch.setattr(dist, "world_size", lambda group=None: world_size)
    ours = kind is DefaultSampler
    options = {"seed": 0} if ours else {"num_replicas": world_size, "rank": 0}
    point = resume_point(target, loader_of(sampler=kind(range(20), **options)))
    assert point.samples == mine
    assert point.note.startswith(
        f"Resuming in the middle of a pass with number of processes {world_size} instead of 2: "
        "it goes on behind the 12 samples that were done"
    )
    assert point.is_warning == bool(again)
    assert (f"of which {again} come again" in point.note) == bool(again)


def test_a_sampler_that_shares_out_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    target = {
        "consumed": 2,
        "samples": 6,
        "shape": {"batch_size": 3, "world_size": 2, "length": 20},
    }
    point = resume_point(target, loader_of(shuffle=True))
    assert (point.batches, point.samples, point.is_warning) == (0, None, True)
    assert "how RandomSampler shares samples out is not known" in point.note


def test_shapes() -> None:
    assert DataShape.of(loader_of()) == DataShape(3, 1, 20)
    assert DataShape.of(DataLoader(range(5), batch_size=None)) == DataShape(1, 1, 5)
    assert DataShape.of(DataLoader(Stream(), batch_size=2)) == DataShape(2, 1, None)
    assert DataShape.of([1, 2]) == DataShape(None, 1, None)
    plain = DataLoader(range(5), batch_sampler=BatchSampler(range(5), 4, False))
    assert DataShape.of(plain) == DataShape(4, 1, 5)
    assert DataShape(None, 1, 4).differences(DataShape(3, 2, None)) == [
        "number of processes 2 instead of 1"
    ]
