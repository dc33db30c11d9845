"""The picture: written where asked for, panels for what is there, best values found."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from fasttrain.cli import main
from fasttrain.cli.curves import Curves
from fasttrain.cli.plot import draw_curves, lower_is_better, metric_groups, smoothed

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "my_run"
    target = folder / "20260101_000000" / "vis_data" / "scalars.json"
    target.parent.mkdir(parents=True)
    with target.open("w") as file:
        for step in range(10, 510, 10):
            loss = 2.5 * math.exp(-step / 120) + 0.05 * math.sin(step)
            record = {"lr": 0.01, "loss": loss, "epoch": 1 + step // 100, "iter": step}
            file.write(json.dumps(record | {"step": step}) + "\n")
        for epoch, value in enumerate([0.5, 0.9, 0.8], 1):
            file.write(json.dumps({"accuracy": value, "rmse": 30 - epoch, "step": epoch}) + "\n")
    return folder


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(PNG)
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_draws_one_panel_per_kind(work_dir: Path) -> None:
    path = draw_curves(work_dir)
    assert path == work_dir / "curves.png"
    width, height = size_of(path)
    assert width == 1200
    assert height == round((1.0 + 2.4 * 4) * 150)  # loss, lr, accuracy, rmse


def test_the_command_prints_the_path(work_dir: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "picture.png"
    assert main(["plot", str(work_dir), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"curves: {out}\n"
    size_of(out)


def test_errors_are_one_paragraph(work_dir: Path, tmp_path: Path, capsys) -> None:
    assert main(["plot", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: no such work folder")
    assert main(["plot", str(work_dir), "--out", str(tmp_path / "no" / "folder.png")]) == 1
    message = capsys.readouterr().err
    assert "cannot write" in message
    assert "Traceback" not in message


def test_metric_groups_share_a_scale() -> None:
    points = {"a": [0.1, 0.9], "b": [0.0, 1.0], "c": [12.0, 40.0], "d": [-0.5, 0.5]}
    curves = Curves(metrics={name: ([1, 2], values) for name, values in points.items()})
    assert metric_groups(curves) == [["a", "b"], ["c"], ["d"]]


def test_which_metrics_are_best_when_small() -> None:
    assert [name for name in ("val_loss", "RMSE", "acc/top1", "mIoU") if lower_is_better(name)] == [
        "val_loss",
        "RMSE",
    ]


def test_smoothing_keeps_lines_and_passes_over_nan() -> None:
    assert smoothed([3.0] * 50) == pytest.approx([3.0] * 50)
    line = [float(i) for i in range(600)]
    assert smoothed(line)[50:550] == pytest.approx(line[50:550])
    assert smoothed([1.0, float("nan"), 1.0]) == pytest.approx([1.0, 1.0, 1.0])
    noise = [float(i % 2) for i in range(600)]
    assert max(smoothed(noise)[50:550]) < 0.51
    assert smoothed([2.0]) == [2.0]
