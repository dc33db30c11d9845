"""The mean time of runs."""

import logging

import pytest

from fasttrain.utils.dl_utils import TimeCounter, time_counter


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every look at the clock is half a second later."""
    now = iter(range(1000))
    monkeypatch.setattr(time_counter.time, "perf_counter", lambda: next(now) / 2)
    monkeypatch.setattr(TimeCounter, "instance_dict", {})


def test_a_function(capsys):
    @TimeCounter(log_interval=2, warmup_interval=2)
    def work(x):
        return x + 1

    assert [work(i) for i in range(4)] == [1, 2, 3, 4] and work.__name__ == "work"
    assert capsys.readouterr().out == (
        "[work]-time per run averaged in the past 2 runs: 500.0 ms\n"
        "[work]-time per run averaged in the past 4 runs: 500.0 ms\n"
    )


def test_a_block_in_a_loop(caplog):
    for _ in range(2):
        with caplog.at_level("INFO"), TimeCounter(tag="load", logger=logging.getLogger("t")):
            pass
    assert "[load]-time per run averaged in the past 2 runs: 500.0 ms" in caplog.text
    assert TimeCounter(tag="load") is TimeCounter.instance_dict["load"]


def test_wrong_use():
    with pytest.raises(AssertionError, match="please specify the tag parameter"), TimeCounter():
        pass
    with pytest.raises(AssertionError, match="warmup_interval must be at least 1, got 0"):
        TimeCounter(warmup_interval=0)
