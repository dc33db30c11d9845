"""Writers: one JSON object per iteration, TensorBoard events, the console line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fasttrain.engine.events import EventStorage
from fasttrain.engine.writers import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_writes_what_is_new_grouped_by_iteration(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(path)
        storage.put_scalar("lr", 0.1, smoothing_hint=False)
        storage.put_scalar("alpha", 1, smoothing_hint=False)
        storage.iter = 1
        storage.put_scalar("loss", 2.0)
        writer.write()
        writer.write()
        storage.iter = 2
        storage.put_scalar("loss", 4.0)
        writer.write()
        writer.close()
    assert lines(path) == [
        {"alpha": 1.0, "iteration": 0, "lr": 0.1},
        {"iteration": 1, "loss": 2.0},
        {"iteration": 2, "loss": 3.0},
    ]
    assert list(lines(path)[0]) == ["alpha", "iteration", "lr"]  # sorted
    JSONWriter(path).close()
    assert len(lines(path)) == 3  # appended to, never cut


def test_tensorboard_gets_scalars_images_and_histograms(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with EventStorage(3) as storage:
        writer = TensorboardXWriter(tmp_path)
        storage.put_scalar("loss", 2.5)
        storage.put_histogram("w", torch.arange(5.0), bins=5)
        writer.write()
        assert storage._histograms == []
        writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 2.5)]
    assert events.Tags()["histograms"] == ["w"]


def test_the_line_has_losses_of_any_case_times_and_eta() -> None:
    with EventStorage(9) as storage:
        storage.put_scalar("CrossEntropy Loss(G)", 1.23456)
        storage.put_scalar("RewardCriterion", 0.5)
        storage.put_scalar("accuracy", 0.9)
        storage.put_scalar("time", 2.0)
        storage.put_scalar("data_time", 0.25)
        storage.put_scalar("lr", 0.01, smoothing_hint=False)
        line = CommonMetricPrinter(20).line(storage)
        assert storage.latest()["eta_seconds"] == (20.0, 9)
    assert (
        line
        == (
            " eta: 0:00:20  iter: 9  CrossEntropy Loss(G): 1.235  RewardCriterion: 0.5  "
            "time: 2.0000  data_time: 0.2500  lr: 0.01"
        )
        or "max_mem" in line
    )  # the memory is shown where there is a GPU


def test_a_metric_that_asks_for_it_is_shown_behind_the_losses() -> None:
    with EventStorage(2) as storage:
        storage.put_scalar("[metric]loss_scale", 4.0)
        storage.put_scalar("loss", 2.0)
        assert (
            CommonMetricPrinter()
            .line(storage)
            .startswith(" iter: 2  loss: 2  [metric]loss_scale: 4  lr: N/A")
        )


def test_without_a_timer_the_eta_comes_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    with EventStorage(0) as storage:
        printer = CommonMetricPrinter(30)
        assert "eta" not in printer.line(storage)
        storage.iter = 10
        assert "eta: 0:00:19" in printer.line(storage)


def test_nothing_is_printed_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with EventStorage(5):
        CommonMetricPrinter(5).write()
        assert caplog.records == []
        CommonMetricPrinter(6).write()
        assert caplog.records[0].name == "fasttrain.utils.events"


def test_a_writer_without_write_says_so() -> None:
    with pytest.raises(NotImplementedError, match="EventWriter has no write"):
        EventWriter().write()


def test_json_is_synced_now_and_then_and_when_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    clock = [0.0]
    monkeypatch.setattr("fasttrain.engine.writers.os.fsync", syncs.append)
    monkeypatch.setattr("fasttrain.engine.writers.time.monotonic", lambda: clock[0])
    writer = JSONWriter(tmp_path / "folder" / "m.json", sync_interval_s=5.0)
    with EventStorage() as storage:
        for storage.iter in range(12):
            clock[0] += 1.0
            storage.put_scalar("x", storage.iter)
            writer.write()
            lines = (tmp_path / "folder" / "m.json").read_text().splitlines()
            assert len(lines) == storage.iter + 1  # readers see every line at once
    assert len(syncs) == 2
    writer.close()
    assert len(syncs) == 3
    writer.close()
    assert len(syncs) == 3


def test_json_goes_on_after_closing(tmp_path: Path) -> None:
    writer = JSONWriter(tmp_path / "m.json")
    with EventStorage() as storage:
        for storage.iter in range(2):
            storage.put_scalar("x", 1.0)
            writer.write()
            writer.close()
    lines = (tmp_path / "m.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [0, 1]


def test_json_may_be_a_device_that_cannot_be_synced() -> None:
    writer = JSONWriter("/dev/null", sync_interval_s=0.0)
    with EventStorage() as storage:
        storage.put_scalar("x", 1.0)
        writer.write()
    writer.close()


def test_a_name_that_comes_later_is_shown() -> None:
    printer = CommonMetricPrinter()
    with EventStorage() as storage:
        storage.put_scalar("loss_a", 1.0)
        assert "loss_a: 1" in printer.line(storage)
        storage.put_scalar("val/CIDEr", 2.0)
        assert printer.line(storage).count("val/CIDEr: 2") == 1
