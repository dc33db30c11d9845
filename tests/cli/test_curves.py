"""Reading scalars.json: starts of a resumed run are joined, damage is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from fasttrain.cli.curves import read_curves
from fasttrain.cli.errors import UsageError


def write(folder: Path, start: str, records: list[dict[str, Any]], tail: str = "") -> Path:
    path = folder / start / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return path


def train(step: int, loss: float, epoch: int | None = None, **more: float) -> dict[str, Any]:
    record = {"lr": 0.1 / step, "loss": loss, "time": 0.01, "iter": step, "step": step, **more}
    return record | ({} if epoch is None else {"epoch": epoch})


def test_sorts_records_into_losses_rates_and_metrics(tmp_path: Path) -> None:
    write(
        tmp_path,
        "20260101_000000",
        [
            train(10, 2.0, epoch=1, loss_box=0.5, accuracy=0.3),
            train(20, 1.0, epoch=1, loss_box=0.4, accuracy=0.4),
            {"accuracy": 0.5, "time": 0.1, "data_time": 0.0, "step": 1},
            train(30, 0.5, epoch=2, loss_box=0.3, accuracy=0.6),
            {"accuracy": 0.7, "time": 0.1, "data_time": 0.0, "step": 2},
        ],
    )
    curves = read_curves(tmp_path)
    assert curves.losses == {
        "loss": ([10, 20, 30], [2.0, 1.0, 0.5]),
        "loss_box": ([10, 20, 30], [0.5, 0.4, 0.3]),
    }
    assert curves.rates["lr"][0] == [10, 20, 30]
    assert curves.metrics == {"accuracy": ([1, 2], [0.5, 0.7])}
    assert curves.metric_axis == "epoch"


def test_metrics_of_an_iteration_based_run(tmp_path: Path) -> None:
    write(tmp_path, "a", [train(10, 2.0), {"mIoU": 40.0, "step": 10}, train(20, 1.0)])
    curves = read_curves(tmp_path)
    assert curves.metric_axis == "iteration"
    assert curves.metrics == {"mIoU": ([10], [40.0])}


def test_a_later_start_replaces_what_it_repeats(tmp_path: Path) -> None:
    write(tmp_path, "20260101_000000", [train(step, 1.0) for step in (10, 20, 30, 40)])
    write(tmp_path, "20260102_000000", [train(step, 2.0) for step in (30, 40, 50)])
    steps, values = read_curves(tmp_path).losses["loss"]
    assert steps == [10, 20, 30, 40, 50]
    assert values == [1.0, 1.0, 2.0, 2.0, 2.0]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a", [train(10, 1.0)], tail='{"loss": 0.9, "it')
    assert read_curves(tmp_path).losses["loss"] == ([10], [1.0])


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a", [], tail='{"loss": \n{"loss": 1.0, "iter": 1, "step": 1}\n')
    with pytest.raises(UsageError, match="line 1: not a JSON record") as caught:
        read_curves(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda folder: folder.rmdir(), "no such work folder"),
        (lambda folder: None, r"holds no scalars.json; .* vis_backends=\[dict\(type='LocalVis"),
        (lambda folder: write(folder, "a", []), "hold no records yet"),
    ],
)
def test_nothing_to_read(tmp_path: Path, prepare: Any, text: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(UsageError, match=text):
        read_curves(folder)
