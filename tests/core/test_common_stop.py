"""Who stops where; on two ranks: tests/runner/resume_two_processes.py."""

import pytest

from fasttrain.core import common_stop, dist
from fasttrain.core.common_stop import CommonStop


class Store:
    """The key-value store of a process group."""

    def __init__(self):
        self.entries = {}

    def set(self, key, value):
        self.entries[key] = value.encode()

    def get(self, key):
        return self.entries[key]

    def check(self, keys):
        return all(key in self.entries for key in keys)


@pytest.fixture
def ranks(monkeypatch):
    """Two ranks' views of one run; `ranks(number)` acts as that rank."""
    store = Store()
    monkeypatch.setattr(common_stop.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    stops = [CommonStop("run"), CommonStop("run")]

    def act_as(number):
        monkeypatch.setattr(dist, "rank", lambda: number)
        return stops[number]

    act_as.store = store
    return act_as


def test_one_process_stops_at_once():
    assert CommonStop("run").is_due(3)


def test_rank_0_gives_the_others_time_to_see_it(ranks):
    assert not ranks(0).is_due(3)
    assert not ranks(1).is_due(3)
    assert ranks(1).is_due(4)
    assert ranks(0).is_due(4)


def test_a_rank_that_is_ahead_waits_for_rank_0s_word(ranks):
    assert not ranks(1).is_due(3)
    assert not ranks(1).is_due(4)
    assert not ranks(0).is_due(4, lead=4)
    assert [number for number in range(5, 9) if ranks(1).is_due(number)] == [8]


def test_runs_do_not_hear_each_other(ranks):
    assert not ranks(0).is_due(3)
    ranks(1)
    assert not CommonStop("another run").is_due(9)


def test_a_rank_that_nobody_answers_stops_alone(ranks, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(common_stop.time, "monotonic", lambda: now[0])
    stop = ranks(1)
    assert not stop.is_due(3)
    now[0] += common_stop.PATIENCE_S + 0.1
    assert stop.is_due(4)


def test_a_store_that_is_gone_holds_nobody(ranks, monkeypatch, caplog):
    def fail(keys):
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(ranks.store, "check", fail)
    assert ranks(1).is_due(3)
    assert "this rank stops alone, behind iteration 3: Connection reset" in caplog.text
