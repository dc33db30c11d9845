"""Calls under rich's progress bar."""

import pytest

from fasttrain.utils import track_progress_rich


@pytest.mark.parametrize("nproc", [1, 2])
def test_arguments_and_order(nproc, capsys):
    tasks = [("ff", 16), {"real": 2}, "1"]
    assert track_progress_rich(int, [("ff", 16), "1", ()], nproc=nproc) == [255, 1, 0]
    assert track_progress_rich(complex, tasks[1:], nproc=nproc) == [2, 1]
    shown = capsys.readouterr().out
    assert "Processing" in shown and "3/3" in shown and "100%" in shown


def test_calls_without_tasks():
    assert track_progress_rich(list, task_num=2) == [[], []]
    assert track_progress_rich(abs, iter([-1, -2])) == [1, 2]
    assert track_progress_rich(abs, iter([-1, -2]), task_num=2, description="Work") == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"func": 1}, TypeError, "func must be a callable object"),
        ({"tasks": 1}, TypeError, "tasks must be an iterable object, but got <class 'int'>"),
        ({}, ValueError, "If tasks is an empty iterable, task_num must be set"),
        ({"tasks": [1], "task_num": 2}, ValueError, "task_num does not match .* 2 against 1"),
        ({"tasks": [1], "nproc": 0}, ValueError, "nproc must be a positive number, got 0"),
    ],
)
def test_wrong_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        track_progress_rich(**{"func": abs, **arguments})
