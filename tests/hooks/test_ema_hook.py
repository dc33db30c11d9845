"""The average follows, is swapped in for evaluation and files, and survives a resume."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fasttrain.hooks import EMAHook, ema_hook
from fasttrain.optim import OptimWrapper
from support import assert_same


def make_runner(**changes):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    options = {"iter": 0, "epoch": 0, "max_iters": 10, "max_epochs": 3, "_resume": True}
    return SimpleNamespace(model=model, **{**options, **changes})


def started(runner, **options):
    hook = EMAHook(**options)
    hook.before_run(runner)
    hook.before_train(runner)
    return hook


def fill(model, value):
    for parameter in model.parameters():
        parameter.data.fill_(value)


def test_it_is_swapped_in_for_validation_and_test():
    runner = make_runner()
    hook = started(runner)
    fill(runner.model, 1.0)
    hook.after_train_iter(runner, 0)
    fill(runner.model, 2.0)
    for stage in ("val", "test"):
        getattr(hook, f"before_{stage}_epoch")(runner)
        assert runner.model[0].bias[0] == 1
        getattr(hook, f"after_{stage}_epoch")(runner, {})
        assert runner.model[0].bias[0] == 2
    pointer = runner.model[0].bias.data_ptr()
    hook.before_val_epoch(runner)
    assert runner.model[0].bias.data_ptr() == pointer


@pytest.mark.parametrize("averages", [False, True])
def test_buffers_are_swapped_only_when_averaged(averages):
    runner = make_runner()
    hook = started(runner, update_buffers=averages)
    runner.model[1].running_mean.fill_(9.0)
    hook.ema_model.module[1].running_mean.fill_(3.0)
    hook.before_val_epoch(runner)
    assert runner.model[1].running_mean[0] == (3 if averages else 9)


def test_before_its_begin_it_copies():
    runner = make_runner()
    hook = started(runner, begin_iter=5, momentum=0.1)
    for runner.iter in range(4):
        fill(runner.model, float(runner.iter))
        runner.model[1].running_mean.fill_(runner.iter)
        hook.after_train_iter(runner, 0)
        assert hook.ema_model.steps == 0
        assert hook.ema_model.module[0].bias[0] == runner.iter
        assert hook.ema_model.module[1].running_mean[0] == runner.iter
    runner.iter = 4
    hook.after_train_iter(runner, 0)
    assert hook.ema_model.steps == 1
    hook = EMAHook(begin_epoch=2)
    assert [hook._ema_started(SimpleNamespace(epoch=epoch)) for epoch in range(3)] == [
        False, True, True,
    ]  # fmt: skip


def test_files_hold_the_average_as_the_model():
    runner = make_runner()
    hook = started(runner)
    fill(runner.model, 1.0)
    hook.after_train_iter(runner, 0)
    fill(runner.model, 2.0)
    checkpoint = {"state_dict": runner.model.state_dict()}
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint["state_dict"]["0.bias"][0] == 1
    assert checkpoint["ema_state_dict"]["module.0.bias"][0] == 2
    assert checkpoint["ema_state_dict"]["steps"] == 1

    fresh = make_runner()
    resumed = started(fresh)
    loaded = copy.deepcopy(checkpoint)
    resumed.after_load_checkpoint(fresh, loaded)
    assert loaded["state_dict"]["0.bias"][0] == 2
    assert_same(resumed.ema_model.state_dict(), hook.ema_model.state_dict())

    fresh._resume = False  # only the weights are wanted: the average starts from them
    loaded = copy.deepcopy(checkpoint)
    resumed.after_load_checkpoint(fresh, loaded)
    assert loaded["state_dict"]["0.bias"][0] == 1
    assert resumed.ema_model.module[0].bias[0] == 1


def test_a_file_without_an_average(monkeypatch):
    runner = make_runner()
    hook = started(runner, strict_load=True)
    state = {key: torch.ones_like(value) for key, value in runner.model.state_dict().items()}
    hook.after_load_checkpoint(runner, {"state_dict": state})
    assert hook.ema_model.module[0].bias[0] == 1
    said = []
    monkeypatch.setattr(ema_hook, "print_log", lambda text, *args: said.append(text))
    hook.after_load_checkpoint(runner, {"state_dict": state})
    assert len(said) == 1 and said[0].startswith("There is no `ema_state_dict` in checkpoint.")
    runner._resume = False  # a checkpoint of plain weights holds none
    hook.after_load_checkpoint(runner, {"state_dict": state})
    assert len(said) == 1
    del state["0.bias"]
    with pytest.raises(RuntimeError, match=r"missing keys in source state_dict: 0\.bias"):
        hook.after_load_checkpoint(runner, {"state_dict": state})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"begin_iter": -1}, "`begin_iter` must larger than or equal to 0, but got begin_iter: -1"),
        ({"begin_epoch": -1}, "`begin_epoch` must larger than"),
        ({"begin_iter": 1, "begin_epoch": 1}, "should not be both set"),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(AssertionError, match=text):
        EMAHook(**options)


@pytest.mark.parametrize(
    ("options", "unit"), [({"begin_epoch": 5}, "epoch"), ({"begin_iter": 50}, "iter")]
)
def test_a_begin_after_the_end(options, unit):
    with pytest.raises(AssertionError, match=f"smaller than or equal to runner.max_{unit}s"):
        started(make_runner(), **options)


@pytest.mark.parametrize("mode", ["val", "test"])
def test_a_save_under_way_reads_the_trained_weights_first(monkeypatch, mode):
    runner = make_runner()
    hook = started(runner)
    seen = []
    monkeypatch.setattr(ema_hook, "order_after_copies", lambda found: seen.append(list(found)))
    monkeypatch.setattr(hook, "_swap_ema_parameters", lambda: seen.append("exchange"))
    optimizer = torch.optim.SGD(runner.model.parameters(), lr=0.1)
    runner.optim_wrapper = OptimWrapper(optimizer)
    getattr(hook, f"before_{mode}_epoch")(runner)
    assert seen == [[optimizer], "exchange"]
