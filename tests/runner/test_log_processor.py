from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.logging import HistoryBuffer, MessageHub
from fasttrain.runner import LogProcessor


def make_runner(**changes: Any) -> Any:
    """A runner in its second epoch after 30 iterations of which all scalars are known."""
    hub = MessageHub("hub")
    for mode in ("train", "val", "test"):
        for number in range(30):
            hub.update_scalars(
                {
                    f"{mode}/data_time": 0.01 * number,
                    f"{mode}/time": 0.1 * number,
                    f"{mode}/loss": float(number),
                    f"{mode}/acc": number * 1.5,
                    f"{mode}/count": number,
                }
            )
    hub.update_scalars({"train/lr": 1e-3, "train/base_lr": 0.5, "lr": 1.0, "trainer/x": 2.0})
    hub.update_info("eta", 40.7)
    loop = SimpleNamespace(dataloader=[0] * 20)
    parts = {
        "message_hub": hub, "epoch": 1, "iter": 31, "max_epochs": 10, "max_iters": 200,
        "train_loop": loop, "val_loop": loop, "test_loop": loop, "_train_loop": loop, "model": None,
    }  # fmt: skip
    return SimpleNamespace(**{**parts, **changes})


TRAIN = (
    "lr: 1.0000e-03 base_lr: 5.0000e-01  eta: 0:00:40  time: 2.4500  data_time: 0.2450  "
    "loss: 24.5000  acc: 43.5000  count: 29"
)
EVALUATION = "  eta: 0:00:40  time: 2.4500  data_time: 0.2450  "
METRICS = "  loss: 24.5000  acc: 43.5000  count: 29  data_time: 0.2350  time: 2.3500"


@pytest.mark.parametrize("hierarchy", [True, False])
@pytest.mark.parametrize(
    ("by_epoch", "mode", "line"),
    [
        (True, "train", f"Epoch(train)  [2][12/20]  {TRAIN}"),
        (True, "val", f"Epoch(val)  [1][12/20]  {EVALUATION}"),
        (True, "test", f"Epoch(test) [12/20]  {EVALUATION}"),
        (False, "train", f"Iter(train) [ 32/200]  {TRAIN}"),
        (False, "val", f"Iter(val) [12/20]  {EVALUATION}"),
        (False, "test", f"Iter(test) [12/20]  {EVALUATION}"),
    ],
)
def test_after_iter(by_epoch: bool, mode: str, line: str, hierarchy: bool) -> None:
    processor = LogProcessor(by_epoch=by_epoch, log_with_hierarchy=hierarchy)
    tag, shown = processor.get_log_after_iter(make_runner(), 11, mode)
    assert shown == line
    numbers = {"data_time": 0.245, "time": 2.45, "loss": 24.5, "acc": 43.5, "count": 29}
    if mode == "train":
        numbers |= {"lr": 1e-3, "base_lr": 0.5}
    expected = {f"{mode}/{k}" if hierarchy else k: pytest.approx(v) for k, v in numbers.items()}
    if by_epoch and mode != "test":
        expected["epoch"] = 2 if mode == "train" else 1
    assert tag == {**expected, "iter": 32}
    assert list(tag) == [*expected, "iter"]


@pytest.mark.parametrize(
    ("by_epoch", "mode", "place"),
    [
        (True, "val", "Epoch(val) [1][20/20]  "),
        (True, "test", "Epoch(test) [20/20]  "),
        (False, "val", "Iter(val) [20/20]  "),
        (False, "test", "Iter(test) [20/20]  "),
    ],
)
def test_after_epoch(by_epoch: bool, mode: str, place: str) -> None:
    tag, line = LogProcessor(by_epoch=by_epoch).get_log_after_epoch(make_runner(), 12, mode)
    # The times are means over the whole pass, here of 13 batches' worth.
    assert line == place + METRICS.replace("0.2350", "0.2300").replace("2.3500", "2.3000")
    assert list(tag) == ["loss", "acc", "count", "data_time", "time"]


def test_results_that_are_no_scalars() -> None:
    runner = make_runner()
    results = {"matrix": np.arange(2), "tensor": torch.ones(1), "text": "x", "list": [1, 2]}
    for name, value in results.items():
        runner.message_hub.update_info(f"val/{name}", value)
    runner.message_hub.update_info("value/x", 1)
    shown = "matrix: \n[0 1]\n  tensor: \ntensor([1.])\n  text: x  list: [1, 2]  data_time"
    processor = LogProcessor()
    tag, line = processor.get_log_after_epoch(runner, 12, "val")
    assert shown in line and not results.keys() & tag.keys()
    tag, line = processor.get_log_after_epoch(runner, 12, "val", with_non_scalar=True)
    assert shown in line and {name: tag[name] for name in results} == results
    names = LogProcessor(log_with_hierarchy=True)._collect_non_scalars(runner, "val")
    assert list(names) == [f"val/{name}" for name in results]


@pytest.mark.parametrize("method", ["get_log_after_iter", "get_log_after_epoch"])
def test_refuses_other_modes(method: str) -> None:
    with pytest.raises(AssertionError, match=r"(train, val or test|val or test mode).* got"):
        getattr(LogProcessor(), method)(make_runner(), 1, "predict")
    with pytest.raises(ValueError, match=r"mode should be 'train' or 'val', but got test"):
        LogProcessor()._get_epoch(make_runner(), "test")


@pytest.mark.parametrize(
    ("max_epochs", "epoch", "place"),
    [
        (1, 0, "Epoch(train) [1][ 2/20]"),
        (9, 8, "Epoch(train) [9][ 2/20]"),
        (10, 8, "Epoch(train)  [9][ 2/20]"),
        (100, 11, "Epoch(train)  [12][ 2/20]"),
    ],
)
def test_places_line_up(max_epochs: int, epoch: int, place: str) -> None:
    runner = make_runner(max_epochs=max_epochs, epoch=epoch)
    assert LogProcessor().get_log_after_iter(runner, 1, "train")[1].startswith(place)


@pytest.mark.parametrize(
    ("eta", "shown"),
    [(0, "0:00:00"), (59.9, "0:00:59"), (3600, "1:00:00"), (90000, "1 day, 1:00:00")],
)
def test_time_left(eta: float, shown: str) -> None:
    runner = make_runner()
    runner.message_hub.update_info("eta", eta)
    assert f"  eta: {shown}  " in LogProcessor().get_log_after_iter(runner, 1, "train")[1]


def test_without_times_there_is_no_time_left() -> None:
    runner = make_runner()
    del runner.message_hub.log_scalars["train/data_time"]
    line = LogProcessor().get_log_after_iter(runner, 1, "train")[1]
    assert line.endswith("lr: 1.0000e-03 base_lr: 5.0000e-01  time: 2.4500  loss: 24.5000  "
                         "acc: 43.5000  count: 29")  # fmt: skip


def test_digits() -> None:
    line = LogProcessor(num_digits=1).get_log_after_iter(make_runner(), 1, "train")[1]
    assert "lr: 1.0e-03 base_lr: 5.0e-01  eta: 0:00:40  time: 2.5  data_time: 0.2  " in line


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[Any] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device=None: 77 * 2**20 + 5)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", resets.append)
    tag, line = LogProcessor().get_log_after_iter(make_runner(), 1, "val")
    assert tag["memory"] == 77 and line.endswith("data_time: 0.2450  memory: 77  ")
    assert resets == [None]


def test_a_validation_alone_has_no_epoch() -> None:
    for train_loop in (None, {"by_epoch": True}):
        runner = make_runner(_train_loop=train_loop, max_epochs=10)
        tag, line = LogProcessor().get_log_after_iter(runner, 1, "val")
        assert (tag["epoch"], tag["iter"]) == (0, 0) and line.startswith("Epoch(val)[0][ 2/20]  ")
        line = LogProcessor().get_log_after_epoch(runner, 1, "val")[1]
        assert line.startswith("Epoch(val) [0][20/20]  ")


# --- custom statistics --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cfg", "name", "number"),
    [
        ({"data_src": "loss", "method_name": "max", "log_name": "high"}, "high", 29.0),
        ({"data_src": "loss", "method_name": "mean", "window_size": "epoch"}, "loss", 23.5),
        ({"data_src": "loss", "method_name": "mean", "window_size": "global"}, "loss", 14.5),
        ({"data_src": "acc", "method_name": "min", "window_size": 4}, "acc", 39.0),
        ({"data_src": "gone", "method_name": "mean"}, "gone", None),
    ],
)
@pytest.mark.parametrize("reserve_prefix", [True, False])
def test_custom(cfg: dict, name: str, number: float | None, reserve_prefix: bool) -> None:
    processor, runner, given = LogProcessor(custom_cfg=[cfg]), make_runner(), dict(cfg)
    windows = processor._parse_windows_size(runner, 11)
    tag = processor._collect_scalars(windows, runner, "train", reserve_prefix)
    assert tag.get(f"train/{name}" if reserve_prefix else name) == number
    assert cfg == given, "the config is left as it was"


def test_a_custom_time_replaces_the_whole_pass() -> None:
    cfg = [{"data_src": "time", "method_name": "max"}]
    tag, _ = LogProcessor(custom_cfg=cfg).get_log_after_epoch(make_runner(), 12, "val")
    assert tag["time"] == pytest.approx(2.9) and tag["data_time"] == pytest.approx(0.23)


def test_scalars_may_come_from_anywhere() -> None:
    runner = make_runner()
    runner.message_hub._log_scalars = {
        "train/loss": HistoryBuffer([1.0, 2.0], [1, 1]),
        "train/acc": HistoryBuffer([1.0, 2.0], [1, 1]),
        "loss": HistoryBuffer([9.0], [1]),
    }
    assert LogProcessor()._collect_scalars([], runner, "train") == {"loss": 1.5, "acc": 2.0}
    only_acc = LogProcessor(mean_pattern="^acc")
    assert only_acc._collect_scalars([], runner, "train") == {"loss": 2.0, "acc": 1.5}


@pytest.mark.parametrize(
    ("cfg", "text"),
    [
        ([{"method_name": "mean"}], r"must have `data_src`, got {'method_name': 'mean'}"),
        (
            [{"data_src": "a", "method_name": "mean"}, {"data_src": "a", "method_name": "max"}],
            r"Found duplicate a for a\. Give each",
        ),
        (
            [{"data_src": "a", "method_name": m, "log_name": "b"} for m in ("max", "min")],
            r"Found duplicate b for a\.",
        ),
        (
            [{"data_src": "a", "method_name": "max"}, {"data_src": "b", "log_name": "a"}],
            r"Found duplicate a for b\.",
        ),
    ],
)
def test_refuses_custom_settings(cfg: list[dict], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        LogProcessor(custom_cfg=cfg)


def test_refuses_windows() -> None:
    epoch = [{"data_src": "a", "method_name": "mean", "window_size": "epoch"}]
    with pytest.raises(AssertionError, match=r"cannot be epoch if LoggerHook\.by_epoch is False"):
        LogProcessor(by_epoch=False, custom_cfg=epoch)
    odd = [{"data_src": "a", "method_name": "mean", "window_size": "epochs"}]
    with pytest.raises(TypeError, match=r"int, epoch or global, but got invalid epochs"):
        LogProcessor(custom_cfg=odd)._parse_windows_size(make_runner(), 1)
    unknown = LogProcessor(custom_cfg=[{"data_src": "loss", "method_name": "median"}])
    with pytest.raises(KeyError, match=r"median has not been registered"):
        unknown.get_log_after_iter(make_runner(), 1, "train")
