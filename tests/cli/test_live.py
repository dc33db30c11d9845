"""The live bar: what it shows, when it reads the loss, and that it leaves no trace."""

import io
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fasttrain.cli import live
from fasttrain.cli.live import LiveHook, format_duration
from fasttrain.hooks import LoggerHook


class Hub:
    """A message hub that counts how often its loss is read."""

    def __init__(self) -> None:
        self.log_scalars = {"train/loss": self}
        self.num_reads = 0

    def get_scalar(self, name: str) -> Any:
        assert name == "train/loss"
        return self

    def current(self) -> float:
        self.num_reads += 1
        return 0.25


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(live, "Console", lambda stderr: console)
    monkeypatch.setattr(live, "REDRAW_INTERVAL_S", 0.0)
    return text


@pytest.fixture
def runner() -> SimpleNamespace:
    logger = logging.Logger("run")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    return SimpleNamespace(
        logger=logger, iter=0, epoch=0, max_iters=20, max_epochs=2, message_hub=Hub(),
        hooks=[LoggerHook(interval=5)], train_loop=SimpleNamespace(_max_epochs=2),
        val_dataloader=range(4), test_dataloader=range(4),
    )  # fmt: skip


def train(hook: LiveHook, runner: Any, num_iters: int) -> None:
    hook.before_train(runner)
    for index in range(num_iters):
        runner.iter = index
        hook.before_train_iter(runner, index)
        hook.after_train_iter(runner, index)


def test_shows_progress_rate_eta_and_loss(screen: io.StringIO, runner: Any) -> None:
    hook = LiveHook(display=True)
    train(hook, runner, 12)
    hook._bar._progress.refresh()
    hook.close()
    shown = screen.getvalue()
    for text in ("train", "60%", "12/20", "epoch 1/2", "it/s  eta 0:00:0", "loss 0.25"):
        assert text in shown
    assert hook.started


def test_the_loss_is_read_at_log_points_only(screen: io.StringIO, runner: Any) -> None:
    train(LiveHook(display=True), runner, 12)
    assert runner.message_hub.num_reads == 2


def test_log_lines_pass_above_the_bar(screen: io.StringIO, runner: Any) -> None:
    (handler,) = runner.logger.handlers
    stream = handler.stream
    hook = LiveHook(display=True)
    hook.before_train(runner)
    assert handler.stream is not stream
    runner.logger.warning("a line of the log")
    assert "a line of the log" in screen.getvalue()
    hook.after_train(runner)
    assert handler.stream is stream
    hook.close()


def test_an_evaluation_has_a_bar_of_its_own(screen: io.StringIO, runner: Any) -> None:
    hook = LiveHook(display=True)
    train(hook, runner, 3)
    hook.before_val(runner)
    hook.before_val_iter(runner, 0)
    hook.after_val_iter(runner, 1)
    hook._bar._progress.refresh()
    assert [task.description for task in hook._bar._progress.tasks] == ["train", "val"]
    assert "2/4" in screen.getvalue()
    hook.after_val(runner)
    assert [task.description for task in hook._bar._progress.tasks] == ["train"]
    hook.close()


def test_without_a_display_it_only_notes_the_first_batch(runner: Any) -> None:
    hook = LiveHook(display=False)
    hook.before_train(runner)
    hook.before_val(runner)
    assert not hook.started
    hook.before_test_iter(runner, 0)
    hook.after_train_iter(runner, 0)
    hook.after_val_iter(runner, 0)
    hook.after_val(runner)
    hook.after_test(runner)
    assert hook.started
    assert runner.message_hub.num_reads == 0


def test_durations() -> None:
    assert [format_duration(s) for s in (0, 59.6, 3661)] == ["0:00:00", "0:01:00", "1:01:01"]
