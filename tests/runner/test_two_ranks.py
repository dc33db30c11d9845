"""Logged scalars averaged over two real processes, and the hub of a resumed run on both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("two_ranks.py")
Ranks = list[list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Per rank, what a whole run and one resumed in its middle showed."""
    folder = tmp_path_factory.mktemp("two_ranks")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    outputs = [folder / f"rank_{rank}.json" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder / "work"), str(output)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [json.loads(output.read_text(encoding="utf-8")) for output in outputs]


def test_tensors_are_averaged_and_numbers_are_not(ranks: Ranks) -> None:
    first, second = (rank[0] for rank in ranks)
    assert first["own"] != second["own"]
    mean = (np.array(first["own"]) + np.array(second["own"])) / 2
    for number, rank in enumerate((first, second)):
        np.testing.assert_allclose(rank["shown"]["train/loss"], mean, rtol=1e-15)
        assert rank["shown"]["train/rank"] == [number] * 12
    assert first["shown"]["train/acc"] == second["shown"]["train/acc"]


def test_one_reduction_for_each_log_point(ranks: Ranks) -> None:
    for rank in ranks:
        assert rank[0]["calls"] == [6, 6, 6, 6], "three iterations of loss and acc each"


def test_the_writers_get_the_averages(ranks: Ranks) -> None:
    shown = ranks[0][0]["shown"]["train/loss"]
    tags = [tag for tag in ranks[0][0]["tags"] if "loss" in tag]
    assert [tag["step"] for tag in tags] == [3, 6, 9, 12]
    for tag in tags:
        window = shown[max(0, tag["step"] - 5) : tag["step"]]
        assert tag["loss"] == pytest.approx(np.mean(window), rel=1e-12)


def test_both_ranks_resume_the_hub(ranks: Ranks) -> None:
    for rank, (whole, resumed) in enumerate(ranks):
        assert resumed["notes"] == whole["notes"] == {"iter": 11, "max_iters": 12}, rank
        for name in ("train/loss", "train/acc", "train/lr"):
            assert resumed["shown"][name] == whole["shown"][name], (rank, name)
        assert len(resumed["own"]) == 6
    before, after = (ranks[0][run]["tags"][-1] for run in (0, 1))
    assert after["loss"] == before["loss"]
