"""Which state a rank takes from a checkpoint, and what it says when it is not its own."""

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.core.checkpoint import collect_rng_state
from fasttrain.core.checkpoint.ranks import pack
from fasttrain.runner import rank_states
from fasttrain.runner.rank_states import RankStates, state_of_rank
from support import assert_same

LOGGER = logging.getLogger("test_rank_states")


def state(number: int) -> dict[str, Any]:
    torch.manual_seed(number), random.seed(number), np.random.seed(number)
    rng = collect_rng_state()
    return {"rng": rng, "batches": {"consumed": 3, "rng": rng, "loader": number}}


def own(world_size: int, absent: tuple[int, ...] = ()) -> dict[str, Any]:
    others = [None if r in absent else pack(state(r)) for r in range(1, world_size)]
    return {"loop": state(0), "other_ranks": others}


def taken(
    monkeypatch: pytest.MonkeyPatch, saved: dict[str, Any], rank: int, world_size: int
) -> dict[str, Any]:
    monkeypatch.setattr(rank_states, "get_dist_info", lambda: (rank, world_size))
    return state_of_rank(saved, LOGGER)


@pytest.mark.parametrize("rank", [0, 1])
def test_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rank: int
) -> None:
    assert_same(taken(monkeypatch, own(2), rank, 2), state(rank))
    assert not caplog.records


@pytest.mark.parametrize(
    ("saved", "world_size", "text"),
    [
        (own(1), 3, "of 1 out of 1 processes, this run has 3; those of rank(s) 1, 2 are derived"),
        (own(3, (1, 2)), 3, "1 out of 3 processes, this run has 3; those of rank(s) 1, 2 are"),
    ],
)
def test_derived(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    saved: dict[str, Any],
    world_size: int,
    text: str,
) -> None:
    first, second, third = (taken(monkeypatch, saved, rank, world_size) for rank in range(3))
    assert_same(first, state(0))
    numbers = {part["rng"]["torch"].numpy().tobytes() for part in (first, second, third)}
    assert len(numbers) == 3
    for part in (second, third):
        assert part["batches"]["consumed"] == 3
        assert "loader" not in part["batches"]
        assert_same(part["batches"]["rng"], part["rng"])
    assert text in caplog.text
    assert "will not equal an uninterrupted one bit for bit" in caplog.text


def test_on_fewer_processes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert_same(taken(monkeypatch, own(4), 1, 2), state(1))
    assert "of 4 out of 4 processes, this run has 2. It goes on" in caplog.text


def test_a_checkpoint_without_states(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert taken(monkeypatch, {}, 1, 2) == {}
    assert not caplog.records


def test_a_single_process_waits_for_nobody() -> None:
    gradients = {"w": torch.ones(2)}
    gathered = RankStates("run", LOGGER).gather("save", {"rng": 1}, gradients)
    assert gathered == ([], gradients)
