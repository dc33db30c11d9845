"""Metrics of a slow device: nothing waits, a NaN surfaces in time, the last values are kept."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fasttrain.engine import CallbackHook, EventStorage, JSONWriter, PeriodicWriter, SimpleTrainer
from fasttrain.engine import metrics as metrics_module
from fasttrain.engine.metrics import AsyncMetrics
from slow_device import SlowReader


class Losing(nn.Module):
    """Twenty losses; one of them is NaN at the given steps."""

    def __init__(self, *nan_at: int) -> None:
        super().__init__()
        self.net = nn.Linear(2, 1)
        self.nan_at, self.step = nan_at, -1

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        self.step += 1
        loss = self.net(batch).square().mean()
        losses = {f"loss_{i}": loss / (i + 1) for i in range(20)}
        if self.step in self.nan_at:
            losses["loss_3"] = losses["loss_3"] * math.nan
        return losses


def trainer_on(
    reader: SlowReader | None, model: nn.Module, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> SimpleTrainer:
    monkeypatch.setattr(
        "fasttrain.engine.trainer_base.EventStorage", partial(EventStorage, reader=reader)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = SimpleTrainer(model, [torch.ones(2, 2)], optimizer)
    if options:
        trainer.metrics = AsyncMetrics(**options)
    return trainer


def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = SlowReader()
    waits: list[int] = []

    class Watched(Losing):
        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            waits.append(reader.num_waits)
            return super().forward(batch)

    trainer = trainer_on(reader, Watched(), monkeypatch, flush_period=4)
    trainer.train(0, 30)
    assert waits == [0] * 30
    assert len(trainer.storage.history("loss_19")) == 30


@pytest.mark.parametrize("nan_at", [0, 6, 13, 49])
def test_a_nan_surfaces_within_a_flush_period(nan_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reader = Losing(nan_at), SlowReader()
    trainer = trainer_on(reader, model, monkeypatch, flush_period=5)
    model.register_forward_pre_hook(lambda *_: reader.land())  # what was begun a step ago is here
    with pytest.raises(FloatingPointError, match=f"infinite or NaN at iteration={nan_at}!") as e:
        trainer.train(0, 50)
    assert "'loss_3': nan" in str(e.value)
    assert trainer.iter <= min(nan_at + 5, 49)


def test_the_last_values_are_written_before_the_writers_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_on(SlowReader(), Losing(), monkeypatch)
    trainer.register_hooks([PeriodicWriter([JSONWriter(tmp_path / "m.json")], period=100)])

    def fail(*_: Any) -> None:
        if trainer.iter == 7:
            raise RuntimeError("broken step")

    trainer.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken step"):
        trainer.train(0, 30)
    rows = [json.loads(line) for line in (tmp_path / "m.json").read_text().splitlines()]
    assert rows[-1]["iteration"] == 6 and "loss_19" in rows[-1]


def test_on_the_cpu_a_nan_leaves_the_weights_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Losing(3)
    trainer = trainer_on(None, model, monkeypatch)
    before: list[Tensor] = []
    model.register_forward_pre_hook(lambda *_: before.append(model.net.weight.detach().clone()))
    with pytest.raises(FloatingPointError, match="at iteration=3"):
        trainer.train(0, 10)
    assert trainer.iter == 3
    assert torch.equal(model.net.weight, before[-1])


def test_after_an_error_everything_is_home_before_the_hooks_clean_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, seen = SlowReader(), []
    trainer = trainer_on(reader, Losing(), monkeypatch)
    trainer.register_hooks(
        [
            CallbackHook(
                before_step=lambda t: 1 / (3 - t.iter),
                after_train=lambda t: seen.append((t.iter, t.storage.store.pending)),
            )
        ]
    )
    with pytest.raises(ZeroDivisionError):
        trainer.train(0, 10)
    assert seen == [(3, False)] and reader.num_waits == 1
    assert len(trainer.storage.history("loss_7")) == 3


def losses_of(value: float) -> dict[str, Tensor]:
    return {"loss_a": torch.tensor(value), "loss_b": torch.tensor(1.0), "acc": torch.tensor(0.5)}


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has losses 2 larger, and waits 3 s longer for its data."""
    monkeypatch.setattr(metrics_module.dist, "world_size", lambda: 2)

    def all_reduce(tensor: Tensor, op: str) -> None:
        tensor.add_(1.0 if op == "mean" else 3.0)

    monkeypatch.setattr(metrics_module.dist, "all_reduce", all_reduce)


def test_several_processes_gather_every_period(two_processes: None) -> None:
    storage, metrics = EventStorage(), AsyncMetrics(gather_period=3)
    for storage.iter in range(6):
        metrics.write(storage, losses_of(storage.iter), 0.5, storage.iter)
    assert storage.history("loss_a").values() == [(3.0, 2), (6.0, 5)]
    assert storage.history("total_loss").values() == [(5.0, 2), (8.0, 5)]
    assert storage.history("acc").latest() == 1.5
    assert storage.history("data_time").values() == [(3.5, 2), (3.5, 5)]
    metrics.write(storage, losses_of(6), 0.5, 6, is_last=True)
    assert storage.history("loss_a").latest() == 7.0


def test_a_nan_between_two_gatherings_is_not_lost(two_processes: None) -> None:
    storage, metrics = EventStorage(), AsyncMetrics(gather_period=3)
    metrics.write(storage, losses_of(math.inf), 0.5, 0)
    metrics.write(storage, losses_of(1.0), 0.5, 1)
    with pytest.raises(FloatingPointError, match="at iteration=2"):
        metrics.write(storage, losses_of(1.0), 0.5, 2)


def test_one_process_writes_every_period_too() -> None:
    model = Losing(13)
    trainer = SimpleTrainer(
        model,
        [torch.ones(2, 2)],
        torch.optim.SGD(model.parameters(), lr=0.01),
        gather_metric_period=5,
    )
    trainer.train(0, 12)
    for name in ("total_loss", "loss_3", "data_time"):
        assert [i for _, i in trainer.storage.history(name).values()] == [4, 9, 11]  # and the last
    with pytest.raises(FloatingPointError, match="at iteration=14"):  # was NaN at 13
        trainer.train(12, 30)


def test_names_get_the_prefix_and_data_time_does_not() -> None:
    storage = EventStorage()
    AsyncMetrics().write(storage, losses_of(1.0), 0.5, 0, "second/")
    AsyncMetrics().write(storage, {"loss": torch.tensor(1.0)}, None, 0)
    assert set(storage.histories()) == {
        "second/loss_a", "second/loss_b", "second/acc", "second/total_loss", "data_time",
        "total_loss",
    }  # fmt: skip
    assert storage.latest()["second/total_loss"] == (2.0, 0)


def test_periods_are_checked() -> None:
    with pytest.raises(ValueError, match="gather_metric_period must be >= 1, got 0"):
        AsyncMetrics(0)
    with pytest.raises(ValueError, match="flush_metric_period must be >= 1, got -1"):
        AsyncMetrics(1, -1)


def test_losses_are_written_by_a_loop_of_ones_own() -> None:
    with EventStorage() as storage:
        SimpleTrainer.write_metrics(losses_of(2.0), 0.1, cur_iter=4)
    assert storage.latest()["total_loss"] == (3.0, 4)
