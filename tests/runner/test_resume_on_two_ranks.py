"""Each of two ranks, stopped in mid-epoch and resumed, equals the uninterrupted one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fasttrain.core.checkpoint import load
from rank_processes import checks_of, run_on_two_ranks

SCRIPT = Path(__file__).with_name("resume_two_processes.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume_two_processes")


@pytest.fixture(scope="module")
def verdicts(folder: Path) -> list[dict[str, str]]:
    """Per rank, what each check said: 'ok' or a traceback."""
    return run_on_two_ranks(SCRIPT, folder)


@pytest.mark.parametrize("check", checks_of(SCRIPT))
def test_on_two_ranks(verdicts: list[dict[str, str]], check: str) -> None:
    for rank, verdict in enumerate(verdicts):
        assert verdict[check] == "ok", f"rank {rank}: {verdict[check]}"


def test_on_one_process_afterwards(
    verdicts: list[dict[str, str]], folder: Path, make_runner: Any, tmp_path: Path
) -> None:
    """Two ranks did 2 of 4 batches of the second epoch; one process does the other 12 samples."""
    (tmp_path / "work").mkdir()
    shutil.copy(folder / "epochs_cut" / "iter_6.pth", tmp_path)
    assert len(load(tmp_path / "iter_6.pth")["fasttrain"]["other_ranks"]) == 1
    data = {
        "dataset": {"type": "LineData", "length": 24},
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "collate_fn": {"type": "default_collate"},
        "batch_size": 4,
    }
    runner = make_runner(
        load_from=str(tmp_path / "iter_6.pth"), resume=True, train_dataloader=data,
        log_level="INFO", train_cfg={"by_epoch": True, "max_epochs": 2},
    )  # fmt: skip
    runner.train()
    assert len(runner.train_dataloader.dataset.loaded) == 12
    log = next((tmp_path / "work").glob("*/*.log")).read_text()
    assert "holds the random states of 2 out of 2 processes, this run has 1. It goes on" in log
    assert (
        "with batch size 4 instead of 3 and number of processes 1 instead of 2: it goes on behind "
        "the 12 samples that were done." in log
    )
