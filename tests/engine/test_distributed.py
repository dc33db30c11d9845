"""Two processes over Gloo: the same weights and metrics as one would have, written once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_processes import STEPS, Regression, all_batches, play, weights_of
from fasttrain.engine import launch

pytestmark = pytest.mark.skipif(
    torch.cuda.device_count() == 1, reason="two processes need no or two GPUs"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("two_processes")
    launch(play, 2, dist_url="auto", args=(str(path),), timeout=timedelta(minutes=2))
    yield path


@pytest.fixture(scope="module")
def reports(folder: Path) -> list[dict[str, Any]]:
    """What process 0 and process 1 saw."""
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def trained_alone(accumulation: int) -> tuple[Regression, dict[str, list[float]]]:
    """One process that sees the batches of both."""
    model = Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found: dict[str, list[float]] = {"loss_a": [], "loss_b": []}
    for step, batch in enumerate(all_batches()):
        losses = model(batch)
        for name, loss in losses.items():
            found[name].append(loss.item())
        (sum(losses.values()) / accumulation).backward()
        if (step + 1) % accumulation == 0:
            optimizer.step()
            optimizer.zero_grad()
    return model, found


def test_losses_are_means_and_the_weights_those_of_one_process(reports: Any) -> None:
    model, expected = trained_alone(1)
    for report in reports:
        scene = report["gathers"]
        assert scene["weights"] == pytest.approx(weights_of(model), rel=1e-5, abs=1e-6)
        for name, losses in expected.items():
            assert scene["losses"][name] == pytest.approx(losses, rel=1e-5)
        totals = [a + b for a, b in zip(*expected.values(), strict=True)]
        assert scene["losses"]["total_loss"] == pytest.approx(totals, rel=1e-5)
        assert scene["data_time"] >= 0.02  # the longest wait of both
    assert reports[0]["gathers"]["weights"] == reports[1]["gathers"]["weights"]


def test_accumulation_reduces_once_per_group(reports: Any) -> None:
    model, _ = trained_alone(2)
    for report in reports:
        scene = report["accumulates"]
        assert scene["reduced"] == list(range(1, STEPS, 2))
        assert scene["weights"] == pytest.approx(weights_of(model), rel=1e-5, abs=1e-6)


def test_a_nan_of_one_process_stops_both(reports: Any) -> None:
    for report in reports:
        scene = report["raises_everywhere"]
        assert scene == {"error": "Loss became infinite or NaN at iteration=2!", "iter": 2}


def test_a_resumed_run_ends_like_the_whole_one(reports: Any) -> None:
    for report in reports:
        scene = report["runs_by_config"]
        assert scene["iters_per_epoch"] == 2 and scene["started_at"] == 4
        assert scene["lr"] == 0.04  # twice that of one process
        for name in ("weights", "ema"):
            assert scene[name][0] == scene[name][1]
        whole, resumed = scene["losses"]
        assert (len(whole), resumed) == (8, whole[4:])
    first, second = (report["runs_by_config"] for report in reports)
    assert first["weights"] == second["weights"] and first["ema"] == second["ema"]
    assert first["drawn"] != second["drawn"]  # each process draws its own numbers


def test_only_the_main_process_evaluates_and_writes(folder: Path, reports: Any) -> None:
    main, other = (report["runs_by_config"] for report in reports)
    assert main["epochs"] == [1, 1, 2, 2, 3, 3, 4, 4] and other["epochs"] == []
    assert {"PeriodicCheckpointer", "PeriodicWriter"} <= set(main["hooks"])
    assert not {"PeriodicCheckpointer", "PeriodicWriter"} & set(other["hooks"])
    names = {path.name for path in (folder / "whole").iterdir()}
    assert {"log.txt", "log.txt.rank1", "config.yaml", "metrics.json", "model_final.pth"} <= names
    text = (folder / "whole" / "metrics.json").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    iterations = [row["iteration"] for row in rows]
    assert iterations == sorted(set(iterations))
    state = torch.load(folder / "whole" / "model_final.pth")["model"]
    assert list(state) == ["net.weight", "net.bias"]  # of the model inside


def test_helpers(reports: Any) -> None:
    for rank, report in enumerate(reports):
        scene = report["talks"]
        assert scene["gathered"] == [1, 1001]
        assert scene["at_1"] == ([0, 1] if rank == 1 else [])
        assert (scene["mean"], scene["sum"]) == ({"a": 0.5, "b": 2.0}, {"a": 1.0, "b": 4.0})
        assert scene["local"] == [rank, 2]
    assert reports[0]["talks"]["seed"] == reports[1]["talks"]["seed"]
