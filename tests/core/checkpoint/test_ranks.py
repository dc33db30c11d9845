"""The exchange between ranks over a store, here of one process that plays both."""

import time

import pytest
import torch
from torch.distributed import HashStore, distributed_c10d

from fasttrain.core import dist
from fasttrain.core.checkpoint import ranks
from support import assert_same


class Play:
    """Lets one process be rank after rank."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
        store = HashStore()
        monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: store)
        monkeypatch.setattr(dist, "world_size", lambda group=None: world_size)
        monkeypatch.setattr(dist, "rank", lambda group=None: self.rank)
        self.rank = 0

    def exchange(self, rank: int, key: str = "run/save") -> ranks.RankExchange:
        self.rank = rank
        return ranks.RankExchange(key, 0.05)


STATE = {"numbers": torch.arange(5), "nested": [1, {"a": 2.5}], "text": "x"}


def test_packed_states_come_back() -> None:
    assert_same(ranks.unpack(ranks.pack(STATE)), STATE)


def test_rank_0_receives_in_the_order_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch, 3)
    for rank in (2, 1):
        play.exchange(rank).send({"rank": rank})
    play.exchange(1, "run/other").send({"rank": -1})
    received = play.exchange(0).receive()
    assert [ranks.unpack(state) for state in received] == [{"rank": 1}, {"rank": 2}]
    assert play.exchange(0).receive() == [None, None]  # taken once


def test_an_absent_rank_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch, 4)
    play.exchange(3).send(STATE)
    start = time.monotonic()
    received = play.exchange(0).receive()
    assert time.monotonic() - start < 5
    assert [state is None for state in received] == [True, True, False]


@pytest.mark.parametrize("go_on", [True, False])
def test_the_answer(monkeypatch: pytest.MonkeyPatch, go_on: bool) -> None:
    play = Play(monkeypatch, 2)
    assert not play.exchange(1).is_answered()
    play.exchange(0).answer(go_on)
    assert play.exchange(1).is_answered() is go_on
    assert not play.exchange(1).is_answered()
