"""Progress bars in plain text."""

import io
import re

import pytest

from fasttrain.utils import (
    ProgressBar,
    progressbar,
    track_iter_progress,
    track_parallel_progress,
    track_progress,
)


def square(x, plus=0):
    return x * x + plus


def lines(file):
    text = re.sub(r"[\d.]+ (tasks?/s)", r"N \1", file.getvalue())
    return re.split(r"[\r\n]|(?<!^)(?=completed)", text)


def test_a_bar_with_a_known_number_of_tasks():
    file = io.StringIO()
    bar = ProgressBar(4, bar_width=8, file=file)
    bar.update()
    bar.update(3)
    assert lines(file) == [
        "[        ] 0/4, elapsed: 0s, ETA:",
        "[>>      ] 1/4, N task/s, elapsed: 0s, ETA:     0s",
        "[>>>>>>>>] 4/4, N task/s, elapsed: 0s, ETA:     0s",
    ]
    with pytest.raises(AssertionError, match="num_tasks must be at least 1, got 0"):
        bar.update(0)


def test_a_bar_with_an_unknown_number_of_tasks():
    file = io.StringIO()
    bar = ProgressBar(start=False, file=file)
    assert file.getvalue() == ""
    bar.start()
    bar.update()
    assert lines(file) == ["completed: 0, elapsed: 0s", "completed: 1, elapsed: 0s, N tasks/s"]


def test_a_narrow_terminal_gets_a_short_bar(monkeypatch):
    monkeypatch.setattr(ProgressBar, "terminal_width", 60)
    file = io.StringIO()
    ProgressBar(1, bar_width=50, file=file).update()
    assert len(lines(file)[-1]) <= 70 and lines(file)[-1].count(">") < 50


@pytest.mark.parametrize("tasks", [[1, 2, 3], (iter([1, 2, 3]), 3)])
def test_track_progress(tasks):
    file = io.StringIO()
    assert track_progress(square, tasks, bar_width=3, file=file, plus=1) == [2, 5, 10]
    assert lines(file)[-2].startswith("[>>>] 3/3") and lines(file)[-1] == ""


def test_track_iter_progress():
    file = io.StringIO()
    assert [square(x) for x in track_iter_progress([1, 2], bar_width=2, file=file)] == [1, 4]
    assert [line[:4] for line in lines(file)] == ["[  ]", "[> ]", "[>>]", ""]


def test_tasks_without_a_number_are_refused():
    with pytest.raises(TypeError, match='"tasks" must be a tuple object or a sequence object'):
        track_progress(square, iter([1]))
    with pytest.raises(AssertionError, match=r"must be \(iterable, number\)"):
        track_progress(square, (1, 2))


class InlinePool:
    """Stands for a pool of processes: starting some takes seconds."""

    def __init__(self, nproc, initializer, initargs):
        if initializer is not None:
            initializer(*initargs)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def imap(self, func, tasks, chunksize):
        return map(func, tasks)

    def imap_unordered(self, func, tasks, chunksize):
        return map(func, list(tasks)[::-1])


def test_track_parallel_progress(monkeypatch):
    monkeypatch.setattr(progressbar, "Pool", InlinePool)
    file = io.StringIO()
    seen = []
    results = track_parallel_progress(
        square, [1, 2, 3, 4], 2, initializer=seen.append, initargs=(5,), skip_first=True, file=file
    )
    assert results == [1, 4, 9, 16] and seen == [5]
    assert "] 0/2" in lines(file)[0] and "] 2/2" in lines(file)[-2]
    unordered = track_parallel_progress(square, [1, 2], 2, keep_order=False, file=io.StringIO())
    assert unordered == [4, 1]
