"""A progress bar in plain text, and loops that show one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import Pool
from typing import Any, TextIO

from .timer import Timer


class ProgressBar:
    """A bar that shows how many tasks are done, how fast, and how long the rest takes.

    Args:
        task_num: number of tasks; 0 when it is not known.
        bar_width: characters of the bar, less on a narrow terminal.
        start: whether to show the bar at once.
        file: where to write.
    """

    def __init__(
        self,
        task_num: int = 0,
        bar_width: int = 50,
        start: bool = True,
        file: TextIO = sys.stdout,
    ) -> None:
        self.task_num = task_num
        self.bar_width = bar_width
        self.completed = 0
        self.file = file
        if start:
            self.start()

    @property
    def terminal_width(self) -> int:
        """Characters of a line of the terminal."""
        return shutil.get_terminal_size().columns

    def start(self) -> None:
        """Show the bar and start to count the time."""
        if self.task_num > 0:
            self._write(f"[{' ' * self.bar_width}] 0/{self.task_num}, elapsed: 0s, ETA:")
        else:
            self._write("completed: 0, elapsed: 0s")
        self.timer = Timer()

    def update(self, num_tasks: int = 1) -> None:
        """Count tasks as done.

        Args:
            num_tasks: number of tasks done since the last call, at least 1.
        """
        assert num_tasks > 0, f"num_tasks must be at least 1, got {num_tasks}"
        self.completed += num_tasks
        elapsed_s = self.timer.since_start()
        rate = self.completed / elapsed_s if elapsed_s > 0 else float("inf")
        if self.task_num <= 0:
            self._write(
                f"completed: {self.completed}, elapsed: {int(elapsed_s + 0.5)}s, {rate:.1f} tasks/s"
            )
            return
        done = self.completed / self.task_num
        eta_s = int(elapsed_s * (1 - done) / done + 0.5)
        text = (
            f"] {self.completed}/{self.task_num}, {rate:.1f} task/s, "
            f"elapsed: {int(elapsed_s + 0.5)}s, ETA: {eta_s:5}s"
        )
        at_most = min(self.terminal_width - len(text) - 2, int(self.terminal_width * 0.6))
        width = max(min(self.bar_width, at_most), 2)
        filled = int(width * done)
        self._write(f"\r[{'>' * filled}{' ' * (width - filled)}{text}")

    def _write(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()


def _counted(tasks: Any) -> tuple[Iterable[Any], int]:
    """The tasks and their number, of a sequence or of a tuple (iterable, number)."""
    if isinstance(tasks, tuple):
        assert len(tasks) == 2 and isinstance(tasks[0], Iterable) and isinstance(tasks[1], int), (
            f"tasks as a tuple must be (iterable, number), got {tasks}"
        )
        return tasks
    if isinstance(tasks, Sequence):
        return tasks, len(tasks)
    raise TypeError(f'"tasks" must be a tuple object or a sequence object, but got {type(tasks)}')


def track_iter_progress(
    tasks: Any, bar_width: int = 50, file: TextIO = sys.stdout
) -> Iterator[Any]:
    """Iterate over tasks, showing a bar.

    Args:
        tasks: a sequence, or a tuple of an iterable and its length.
        bar_width: characters of the bar.
        file: where to write.
    """
    items, number = _counted(tasks)
    bar = ProgressBar(number, bar_width, file=file)
    for item in items:
        yield item
        bar.update()
    file.write("\n")


def track_progress(
    func: Callable[..., Any],
    tasks: Any,
    bar_width: int = 50,
    file: TextIO = sys.stdout,
    **kwargs: Any,
) -> list[Any]:
    """Call `func(task, **kwargs)` for all tasks, showing a bar, and return the results."""
    return [func(task, **kwargs) for task in track_iter_progress(tasks, bar_width, file)]


def track_parallel_progress(
    func: Callable[[Any], Any],
    tasks: Any,
    nproc: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] | None = None,
    bar_width: int = 50,
    chunksize: int = 1,
    skip_first: bool = False,
    keep_order: bool = True,
    file: TextIO = sys.stdout,
) -> list[Any]:
    """Call `func` for all tasks in several processes, showing a bar, and return the results.

    Args:
        func: called with one task.
        tasks: a sequence, or a tuple of an iterable and its length.
        nproc: number of processes.
        initializer: called with `initargs` in every process first.
        initargs: see `initializer`.
        bar_width: characters of the bar.
        chunksize: tasks handed to a process at a time.
        skip_first: leave the first task of each process out of the bar, whose time then is not
            spoiled by what the processes do first.
        keep_order: return the results in the order of the tasks rather than as they come.
        file: where to write.
    """
    items, number = _counted(tasks)
    skipped = nproc * chunksize if skip_first else 0
    bar = ProgressBar(number - skipped, bar_width, start=not skip_first, file=file)
    results: list[Any] = []
    with Pool(nproc, initializer, initargs or ()) as pool:
        in_order = pool.imap if keep_order else pool.imap_unordered
        for result in in_order(func, items, chunksize):
            results.append(result)
            if skip_first and len(results) < skipped:
                continue
            if skip_first and len(results) == skipped:
                bar.start()
                continue
            bar.update()
    file.write("\n")
    return results
