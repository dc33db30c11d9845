"""The profiler hook: arguments, what it profiles, what it writes."""

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from fasttrain.hooks import ProfilerHook


def make_runner(**changes: Any) -> Any:
    values = dict(max_epochs=2, max_iters=10, epoch=0, iter=0, log_dir="logs", logger=MagicMock())
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"by_epoch": 3}, AssertionError, "``by_epoch`` should be a boolean."),
        ({"activity_with_cpu": 1}, AssertionError, "``activity_with_cpu`` should be a boolean."),
        ({"activity_with_cuda": 1}, AssertionError, "``activity_with_cuda`` should be a boolean."),
        ({"schedule": 3}, AssertionError, "``schedule`` should be a dict."),
        ({"profile_times": 0}, ValueError, "profile_iters should be greater than 0, but got 0"),
        ({"profile_times": 5}, ValueError, "Profiler will profile 0-5 epochs."),
    ],
)
def test_wrong_arguments(options: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        ProfilerHook(**options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"by_epoch": False, "profile_times": 50}, ValueError, "should not be greater than 10"),
        ({"on_trace_ready": {"type": "x"}}, ValueError, 'should be "log_trace" or "tb_trace"'),
        ({"on_trace_ready": 3}, ValueError, "should be a handler, or dict, or None, but got 3"),
    ],
)
def test_what_shows_when_the_run_begins(options: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        ProfilerHook(**options).before_run(make_runner())


def test_profiles_iterations_and_writes_a_trace(tmp_path: Any, capsys: Any) -> None:
    path = tmp_path / "trace.json"
    trace = {"type": "log_trace", "sort_by": "cpu_time"}
    hook = ProfilerHook(
        by_epoch=False, profile_times=2, json_trace_path=str(path), on_trace_ready=trace
    )
    runner = make_runner()
    hook.before_run(runner)
    for runner.iter in range(4):
        torch.ones(3).add(1)
        hook.after_train_iter(runner, runner.iter, None, None)
        assert hook._closed is (runner.iter >= 1)
    assert trace == {"type": "log_trace", "sort_by": "cpu_time"}
    events = json.loads(path.read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::add" for event in events) == 2
    assert "aten::add" in capsys.readouterr().out


def test_profiles_one_epoch(tmp_path: Any) -> None:
    hook = ProfilerHook(schedule={"wait": 1, "warmup": 1, "active": 1})
    runner = make_runner()
    hook.before_run(runner)
    hook.after_train_iter(runner, 0)
    assert not hook._closed
    hook.after_train_epoch(runner)
    assert hook._closed
    hook.after_train_iter(runner, 1)
