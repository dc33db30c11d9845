"""Measuring time."""

import pytest

from fasttrain.utils import Timer, TimerError, check_time, timer


@pytest.fixture
def clock(monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr(timer, "perf_counter", lambda: float(next(times)))


def test_counts_from_the_start_and_from_the_last_check(clock):
    watch = Timer()
    assert watch.is_running
    assert watch.since_start() == 1.0
    assert watch.since_last_check() == 1.0
    assert watch.since_start() == 3.0
    watch.start()
    assert watch.since_last_check() == 1.0 and watch.since_start() == 6.0


def test_a_timer_that_does_not_run():
    watch = Timer(start=False)
    for method in (watch.since_start, watch.since_last_check):
        with pytest.raises(TimerError, match="timer is not running"):
            method()


def test_a_context_prints_its_time(clock, capsys):
    with Timer(start=False, print_tmpl="took {:.1f} s") as watch:
        assert watch.is_running
    assert capsys.readouterr().out == "took 1.0 s\n"
    assert not watch.is_running


def test_check_time(clock):
    assert check_time("one") == 0
    assert check_time("one") == 1.0
    assert check_time("two") == 0
