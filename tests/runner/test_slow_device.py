"""A whole training whose scalars come late: the same lines, tags and files as without delay."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fasttrain.hooks import Hook
from slow_device import SlowReader


class Landing(Hook):
    """Lets what is under way land every so many iterations."""

    priority = "VERY_HIGH"

    def __init__(self, reader: SlowReader, interval: int) -> None:
        self.reader, self.interval = reader, interval

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self.reader.land()


class Breaking(Hook):
    """Ends the training with an error."""

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 7:
            raise RuntimeError("broken")


def cfg(work_dir: Path, by_epoch: bool) -> dict[str, Any]:
    loop = {"by_epoch": True, "max_epochs": 3}
    return {
        "work_dir": str(work_dir),
        "train_cfg": loop if by_epoch else {"by_epoch": False, "max_iters": 12, "val_interval": 5},
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": 3},
            "checkpoint": {"type": "CheckpointHook", "interval": 4, "by_epoch": by_epoch},
        },
        "log_processor": {"type": "LogProcessor", "by_epoch": by_epoch},
        "visualizer": {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
        "log_level": "INFO",
    }


def shown(work_dir: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The lines and tags of the run, without what a clock or the run's name tells."""
    log = next(work_dir.glob("*/*.log")).read_text()
    tags = [
        {k: v for k, v in json.loads(line).items() if "time" not in k}
        for line in next(work_dir.glob("*/vis_data/scalars.json")).read_text().splitlines()
    ]
    lines = re.findall(r"INFO - ((?:Epoch|Iter)\(.*|Exp name)", log)
    return [re.sub(r"(eta|time): *[\d.:]+", "", line) for line in lines], tags


@pytest.fixture
def run(make_runner: Any, tmp_path: Path) -> Any:
    """Trains; returns what was shown and the reader."""

    def train(by_epoch: bool, interval: int | None, *hooks: Hook) -> tuple[Any, SlowReader]:
        work_dir = tmp_path / f"{by_epoch}_{interval}_{len(hooks)}"
        runner, reader = make_runner(**cfg(work_dir, by_epoch)), SlowReader()
        if interval is not None:
            runner.message_hub.store.use_reader(reader)
            runner.register_hook(Landing(reader, interval))
        for hook in hooks:
            runner.register_hook(hook)
        try:
            runner.train()
        except RuntimeError as error:
            assert str(error) == "broken"
        return shown(work_dir), reader

    return train


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("interval", [1, 2, 100])
def test_the_log_is_the_same(run: Any, by_epoch: bool, interval: int) -> None:
    expected, _ = run(by_epoch, None)
    found, reader = run(by_epoch, interval)
    assert len(expected[0]) > 4 and len(expected[1]) > 4
    assert found == expected
    assert reader.transfers


def test_an_error_loses_no_line(run: Any) -> None:
    expected, _ = run(False, None, Breaking())
    found, _ = run(False, 100, Breaking())
    assert any("[ 6/12]" in line for line in found[0])
    assert found == expected
