"""Calls for many tasks under rich's progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from functools import partial
from multiprocessing import Pool
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


def _call(function: Callable[..., Any], task: Any) -> Any:
    """Call with the arguments of a tuple, the keyword arguments of a dict, or one argument."""
    if isinstance(task, tuple):
        return function(*task)
    return function(**task) if isinstance(task, dict) else function(task)


def _counted(tasks: Iterable[Any], task_num: int | None) -> tuple[Iterable[Any], int | None]:
    if not isinstance(tasks, Sized):
        return tasks, task_num
    if len(tasks) == 0:
        if task_num is None:
            raise ValueError("If tasks is an empty iterable, task_num must be set")
        return [()] * task_num, task_num
    if task_num is not None and task_num != len(tasks):
        raise ValueError(
            f"task_num does not match the length of tasks: {task_num} against {len(tasks)}"
        )
    return tasks, len(tasks)


def track_progress_rich(
    func: Callable[..., Any],
    tasks: Iterable[Any] = (),
    task_num: int | None = None,
    nproc: int = 1,
    chunksize: int = 1,
    description: str = "Processing",
    color: str = "blue",
) -> list[Any]:
    """Call `func` for all tasks, showing a bar, and return the results in order.

    Args:
        func: called with a task; a tuple gives its arguments, a dict its keyword arguments.
        tasks: the tasks; none mean `task_num` calls without arguments.
        task_num: number of tasks, where `tasks` does not know its length.
        nproc: number of processes; 1 calls `func` in this one.
        chunksize: tasks handed to a process at a time.
        description: written before the bar.
        color: of the description.
    """
    if not callable(func):
        raise TypeError("func must be a callable object")
    if not isinstance(tasks, Iterable):
        raise TypeError(f"tasks must be an iterable object, but got {type(tasks)}")
    tasks, total = _counted(tasks, task_num)
    if nproc <= 0:
        raise ValueError(f"nproc must be a positive number, got {nproc}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
    )
    call = partial(_call, func)
    with Progress(*columns) as progress:
        bar = progress.add_task(f"[{color}]{description}", total=total)

        def shown(results: Iterable[Any]) -> list[Any]:
            collected = []
            for result in results:
                collected.append(result)
                progress.advance(bar)
            return collected

        if nproc == 1:
            return shown(map(call, tasks))
        with Pool(nproc) as pool:
            return shown(pool.imap(call, tasks, chunksize))
