"""How a run ends early: after Ctrl-C its state is saved, after any exception its logs are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fasttrain.core.checkpoint import write_pointer
from fasttrain.dist import is_main_process

if TYPE_CHECKING:
    from fasttrain.runner.runner import Runner


@contextmanager
def clean_ending(runner: Runner) -> Iterator[None]:
    """Guard a run: turn Ctrl-C into an end between two iterations, and lose nothing logged.

    Raises:
        KeyboardInterrupt: the run was interrupted; the log tells how to resume it.
    """
    with runner._interrupt:
        try:
            yield
        except BaseException as error:
            # A worker that Ctrl-C killed shows as an error of the dataloader.
            interrupted = isinstance(error, KeyboardInterrupt) or runner._interrupt.requested
            # First what is under way, such as a checkpoint of an earlier iteration.
            for call in runner._hook_list.stage("on_exception"):
                with logged_errors(runner):
                    call(runner)
            if interrupted:
                with logged_errors(runner):
                    save_interrupted(runner)
            flush(runner)
            if interrupted and not isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        finally:
            if runner._built_train_loop is not None:
                runner._built_train_loop.close()


@contextmanager
def logged_errors(runner: Runner) -> Iterator[None]:
    """Log an error instead of raising it, since another one is on its way out."""
    try:
        yield
    except Exception as error:
        runner.logger.error(f"{type(error).__name__}: {error}")


def save_interrupted(runner: Runner) -> None:
    """Save the last completed iteration if the loop stands behind one, and tell how to resume."""
    loop = runner._built_train_loop
    if loop is None:
        return
    if not loop.at_boundary:
        runner.logger.warning(
            f"Interrupted in the middle of iteration {loop.iter + 1}; its state is not saved. "  # type: ignore[attr-defined]
            "Resume from the last checkpoint with `resume=True` (fasttrain train CONFIG --resume)."
        )
        return
    epoch, iter_ = runner.epoch, runner.iter
    name = f"iter_{iter_}.pth"
    runner.save_checkpoint(
        runner.work_dir, name, by_epoch=False, meta={"epoch": epoch, "iter": iter_}
    )
    path = f"{runner.work_dir}/{name}"
    if is_main_process():
        write_pointer(runner.work_dir, path)
    runner.logger.warning(
        f"Interrupted after iteration {iter_} (epoch {epoch + 1}); the state is saved to {path}. "
        "Resume with `resume=True` (fasttrain train CONFIG --resume)."
    )


def flush(runner: Runner) -> None:
    """Write out what writers and log files still hold."""
    with logged_errors(runner):
        runner.visualizer.close()
    for handler in runner.logger.handlers:
        handler.flush()
