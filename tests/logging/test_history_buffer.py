import copy
import pickle

import numpy as np
import pytest
import torch

from fasttrain.logging import HistoryBuffer
from support import check_save_and_resume


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The registered statistics, restored after the test."""
    methods = dict(HistoryBuffer._statistics_methods)
    monkeypatch.setattr(HistoryBuffer, "_statistics_methods", methods)
    return methods


def last_over_first(buffer: HistoryBuffer, scale: float = 1.0) -> float:
    history, _ = buffer.data
    return scale * history[-1] / history[0]


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_construction(make) -> None:
    buffer = HistoryBuffer(make([1.0, 2.0, 3.0]), make([1, 2, 3]))
    assert buffer._log_history.tolist() == [1.0, 2.0, 3.0]
    assert buffer._count_history.tolist() == [1, 2, 3]
    assert (buffer.max_length, buffer._max_length) == (1_000_000, 1_000_000)
    assert buffer.mean() == 1.0


def test_construction_keeps_the_last() -> None:
    buffer = HistoryBuffer([1, 2, 3], [4, 5, 6], max_length=2)
    assert buffer._log_history.tolist() == [2, 3]
    buffer.update(7)
    assert [column.tolist() for column in buffer.data] == [[3, 7], [6, 1]]


def test_construction_leaves_the_arguments_alone() -> None:
    given = np.array([1.0, 2.0])
    HistoryBuffer(given, given).update(5.0)
    assert given.tolist() == [1.0, 2.0]


def test_construction_refuses_unequal_lengths() -> None:
    with pytest.raises(AssertionError, match=r"should be equal, but got 2 and 1"):
        HistoryBuffer([1.0, 2.0], [1])


def test_update() -> None:
    buffer = HistoryBuffer()
    buffer.update(1)
    buffer.update(2.5, 3)
    buffer.update(True, 0.5)
    assert buffer._log_history.tolist() == [1.0, 2.5, 1.0]
    assert buffer._count_history.tolist() == [1.0, 3.0, 0.5]
    assert buffer._log_history.dtype == np.float64


@pytest.mark.parametrize("bad", ["1", None, [1.0], np.float32(1), torch.tensor(1.0), np.ones(2)])
def test_update_refuses_what_is_no_python_number(bad) -> None:
    buffer = HistoryBuffer()
    with pytest.raises(TypeError, match=r"log_val must be int or float but got"):
        buffer.update(bad)
    with pytest.raises(TypeError, match=r"count must be int or float but got"):
        buffer.update(1.0, bad)
    assert len(buffer.data[0]) == 0


@pytest.mark.parametrize(
    ("window", "mean", "low", "high"),
    [
        (None, 18.5 / 8, 1.0, 9.0), (100, 18.5 / 8, 1.0, 9.0), (5, 18.5 / 8, 1.0, 9.0),
        (0, 18.5 / 8, 1.0, 9.0), (1, 9.0, 9.0, 9.0), (2, 10.5 / 4, 1.5, 9.0),
        (-1, 15.5 / 7, 1.0, 9.0),
    ],
)  # fmt: skip
def test_windows(window: int | None, mean: float, low: float, high: float) -> None:
    buffer = HistoryBuffer([3.0, 1.0, 4.0, 1.5, 9.0], [1, 2, 1, 3, 1])
    assert (buffer.mean(window), buffer.min(window), buffer.max(window)) == (mean, low, high)
    assert buffer.current() == 9.0
    for result in (buffer.mean(window), buffer.min(window), buffer.current()):
        assert isinstance(result, np.float64)


@pytest.mark.parametrize("window", [1.0, "2", (1,)])
def test_windows_are_numbers(window) -> None:
    buffer = HistoryBuffer([1.0], [1])
    for method in (buffer.mean, buffer.min, buffer.max):
        with pytest.raises(AssertionError, match=r"type of window size should be int, but got"):
            method(window)


def test_empty() -> None:
    buffer = HistoryBuffer()
    with pytest.raises(ValueError, match=r"is an empty array! please call update first"):
        buffer.current()
    for method in (buffer.min, buffer.max):
        with pytest.raises(ValueError, match=r"zero-size array"):
            method()
    assert np.isnan(buffer.mean())


def test_integers_stay_integers_until_a_float_comes() -> None:
    buffer = HistoryBuffer([1, 2], [1, 1])
    assert (buffer.current(), type(buffer.current())) == (2, np.int64)
    assert buffer.data[0].dtype == np.int64
    buffer.update(2.5)
    assert type(buffer.current()) is np.float64


def test_statistics_by_name(statistics: dict) -> None:
    assert {"mean", "max", "min", "current"} <= statistics.keys()
    buffer = HistoryBuffer([2.0, 1.0, 8.0], [1, 1, 1])
    assert buffer.statistics("mean", window_size=2) == 4.5
    assert buffer.statistics("max", 2) == 8.0
    assert HistoryBuffer.register_statistics(last_over_first) is last_over_first
    assert buffer.statistics("last_over_first", scale=2.0) == 8.0
    assert HistoryBuffer([1.0], [1]).statistics("last_over_first") == 1.0
    with pytest.raises(AssertionError, match=r"cannot be registered twice! 'last_over_first'"):
        HistoryBuffer.register_statistics(last_over_first)
    with pytest.raises(KeyError, match=r"median has not been registered"):
        buffer.statistics("median")


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_copies(statistics: dict, clone) -> None:
    HistoryBuffer.register_statistics(last_over_first)
    HistoryBuffer.register_statistics(lambda buffer: 0)  # cannot be pickled, and need not be
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1], max_length=3)
    other = clone(buffer)
    other.update(4.5)
    assert buffer.data[0].tolist() == [1, 2, 3]
    assert other.data[0].tolist() == [2, 3, 4.5]
    assert other.max_length == 3
    assert other.statistics("last_over_first") == 2.25


def test_takes_the_state_of_a_foreign_buffer(statistics: dict) -> None:
    buffer = HistoryBuffer.__new__(HistoryBuffer)
    buffer.__setstate__(
        {
            "max_length": 4,
            "_log_history": np.array([1.5, 2.5]),
            "_count_history": np.array([1, 2]),
            "statistics_methods": {"mean": len, "last_over_first": last_over_first},
        }
    )
    buffer.update(3.5)
    assert [column.tolist() for column in buffer.data] == [[1.5, 2.5, 3.5], [1, 2, 1]]
    assert buffer.max_length == 4
    assert buffer.mean() == 7.5 / 4, "a foreign function must not replace our own"
    assert buffer.statistics("last_over_first") == 3.5 / 1.5


def test_saves_and_resumes() -> None:
    def advance(buffer: HistoryBuffer, step: int) -> list:
        buffer.update(step * 0.5, step + 1)
        return [buffer.mean(3), buffer.current(), buffer.data[0]]

    check_save_and_resume(lambda: HistoryBuffer(max_length=6), advance)


def test_a_state_may_be_cut() -> None:
    buffer = HistoryBuffer([1.0, 2.0, 3.0], [4, 5, 6])
    state = buffer.state_dict(limit=2)
    assert isinstance(state["values"], torch.Tensor)
    other = HistoryBuffer()
    other.load_state_dict(state)
    assert [column.tolist() for column in other.data] == [[2.0, 3.0], [5, 6]]
