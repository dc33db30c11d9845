import math
import pickle

import numpy as np
import pytest
import torch

from fasttrain.core.history import Series
from fasttrain.core.pending import PendingQueue
from slow_device import SlowReader
from support import check_save_and_resume

VALUES = [3.0, 1.0, 4.0, 1.5, 9.0]
COUNTS = [1.0, 2.0, 1.0, 3.0, 1.0]


@pytest.fixture
def series() -> Series:
    series = Series()
    series.extend(VALUES, COUNTS)
    return series


@pytest.mark.parametrize("window", [None, 1, 2, 5, 100])
def test_statistics_of_windows(series: Series, window: int | None) -> None:
    values = np.array(VALUES)[-(window or 5) :]
    counts = np.array(COUNTS)[-(window or 5) :]
    assert series.mean(window) == values.sum() / counts.sum()
    assert series.min(window) == values.min()
    assert series.max(window) == values.max()
    assert series.median(window) == np.median(values)
    assert series.global_mean() == np.sum(VALUES) / np.sum(COUNTS)
    assert series.current() == 9.0


def test_means_equal_numpy_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    series = Series(5000)
    for size in (1, 7, 8, 9, 127, 128, 129, 1000, 4500, 9000):
        series.extend(rng.standard_normal(size) * 10.0 ** rng.uniform(-6, 6, size))
        for window in (1, 7, 8, 9, 128, 129, 300, 2999, 5000):
            values, counts = series.window(window)
            assert series.mean(window) == values.sum() / counts.sum()


def test_long_means_do_not_drift() -> None:
    series = Series()
    series.extend(np.full(1_000_000, 0.1))
    assert series.mean() == pytest.approx(0.1, rel=1e-14)


def test_empty() -> None:
    series = Series()
    assert len(series) == 0
    assert math.isnan(series.mean())
    for read in (series.current, series.min, series.max, series.median):
        with pytest.raises(ValueError, match="the series is empty"):
            read()


def test_counts_of_zero() -> None:
    series = Series()
    series.append(2.0, 0)
    assert series.mean() == math.inf
    series.append(-4.0, 0)
    assert series.mean() == -math.inf


def test_nan_shows_in_every_statistic() -> None:
    series = Series()
    series.extend([1.0, float("nan"), 2.0])
    assert all(math.isnan(f()) for f in (series.mean, series.min, series.max))
    assert series.mean(1) == 2.0


def test_only_the_last_are_kept() -> None:
    series = Series(max_length=3)
    for number in range(5):
        series.append(float(number))
    assert series.values().tolist() == [2.0, 3.0, 4.0]
    assert (series.total, len(series), series.max_length) == (5, 3, 3)


def test_extend_checks_lengths_and_shapes() -> None:
    series = Series()
    with pytest.raises(ValueError, match="as many counts as values, got 1 and 2"):
        series.extend([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"values must have one dimension, got the shape \(2, 2\)"):
        series.extend(np.zeros((2, 2)))
    series.extend(torch.tensor([1.0, 2.0], requires_grad=True))
    assert series.values().tolist() == [1.0, 2.0]


def test_windows_are_copies(series: Series) -> None:
    series.values()[0] = 100.0
    assert series.max() == 9.0


def test_a_waiting_scalar_keeps_its_place() -> None:
    reader = SlowReader()
    series = Series(queue=PendingQueue(reader))
    series.append(1.0)
    series.append(torch.tensor(2.0), 2)
    series.append(3.0)
    assert not reader.transfers
    assert series.values().tolist() == [1.0, 2.0, 3.0]
    assert series.counts().tolist() == [1.0, 2.0, 1.0]
    assert len(reader.transfers) == 1


@pytest.mark.parametrize("limit", [None, 100, 4])
def test_saves_and_resumes(limit: int | None) -> None:
    def advance(series: Series, step: int) -> list[float]:
        series.append(step * 0.5, step + 1)
        return [series.mean(2), series.max(3), series.current(), float(series.total)]

    check_save_and_resume(lambda: Series(6), advance, state=lambda s: s.state_dict(limit))


def test_a_state_is_plain(series: Series) -> None:
    state = series.state_dict(limit=2)
    assert state["values"].tolist() == [1.5, 9.0]
    assert (state["total"], state["max_length"]) == (5, 1_000_000)
    assert {type(value) for value in state.values()} == {torch.Tensor, int, bool}
    assert pickle.loads(pickle.dumps(state))["counts"].tolist() == [3.0, 1.0]


def test_a_broken_state_changes_nothing(series: Series) -> None:
    with pytest.raises(KeyError, match="must have 'counts'"):
        series.load_state_dict({"values": torch.zeros(1)})
    with pytest.raises(ValueError, match="as many counts as values, got 2 and 1"):
        series.load_state_dict({"values": torch.zeros(1), "counts": torch.zeros(2)})
    assert series.values().tolist() == VALUES
