"""The runner's small parts: priorities, intervals, autocast, checkpointing, lazy parts, Ctrl-C."""

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from fasttrain.runner import (
    Priority,
    autocast,
    get_priority,
    set_random_seed,
    turn_on_activation_checkpointing,
)
from fasttrain.runner.interrupt import Interrupt
from fasttrain.runner.lazy import LazyPart
from fasttrain.runner.snapshot import same
from fasttrain.runner.utils import _get_batch_size, calc_dynamic_intervals


@pytest.mark.parametrize(
    ("given", "number"), [(50, 50), ("VERY_LOW", 90), ("low", 70), (Priority.NORMAL, 50), (0, 0)]
)
def test_priorities(given: Any, number: int) -> None:
    assert get_priority(given) == number


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (-1, ValueError, "priority must be between 0 and 100, got -1"),
        (101, ValueError, "priority must be between 0 and 100, got 101"),
        (1.0, TypeError, "priority must be an integer or Priority enum value"),
        ("SOON", KeyError, "unknown priority 'SOON'; expected one of HIGHEST"),
    ],
)
def test_wrong_priorities(given: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        get_priority(given)


def test_dynamic_intervals() -> None:
    assert calc_dynamic_intervals(9) == ([0], [9])
    assert calc_dynamic_intervals(9, [(10, 2), (20, 3)]) == ([0, 10, 20], [9, 2, 3])
    for wrong in [((10, 2),), [[10, 2]], 3]:
        with pytest.raises(AssertionError, match="must be a list of"):
            calc_dynamic_intervals(9, wrong)


def test_batch_size() -> None:
    assert _get_batch_size({"batch_size": 3}) == 3
    assert _get_batch_size({"batch_sampler": {"type": "X", "batch_size": 4}}) == 4
    assert _get_batch_size(DataLoader([1, 2], batch_size=2)) == 2
    with pytest.raises(ValueError, match="Please set batch_size in"):
        _get_batch_size({})
    with pytest.raises(ValueError, match="dataloader should be a dict or a Dataloader instance"):
        _get_batch_size(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="its batch size is unknown"):
        _get_batch_size(DataLoader([1], batch_size=None))


def test_random_seed_gives_the_same_numbers() -> None:
    assert set_random_seed(3) == 3
    first = torch.rand(2), np.random.rand()
    set_random_seed(3)
    assert torch.equal(torch.rand(2), first[0])
    assert np.random.rand() == first[1]
    assert isinstance(set_random_seed(None), int)


def test_autocast_on_the_cpu() -> None:
    x = torch.ones(2, 2)
    with autocast("cpu"):
        assert (x @ x).dtype == torch.bfloat16
        with autocast("cpu", enabled=False):
            assert (x @ x).dtype == torch.float32
    with autocast("cpu", cache_enabled=False):
        assert not torch.is_autocast_cache_enabled()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"device_type": "tpu"}, ValueError, "device_type must be cuda or cpu, but got tpu"),
        (
            {"device_type": "cpu", "dtype": torch.float16},
            AssertionError,
            "In CPU autocast, only support `torch.bfloat16` dtype",
        ),
    ],
)
def test_wrong_autocast(options: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text), autocast(**options):
        pass


def test_activation_checkpointing_computes_twice() -> None:
    calls: list[int] = []

    class Block(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return super().forward(x).sin()

    model = nn.Sequential(Block(2, 2), nn.Sequential(Block(2, 2)))
    x = torch.randn(3, 2)
    model(x).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    calls.clear()
    turn_on_activation_checkpointing(model, ["0", "1.0"])
    model(x).sum().backward()
    assert len(calls) == 4
    for parameter, grad in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, grad)
    with pytest.raises(AttributeError, match="names 'nope', which Sequential lacks"):
        turn_on_activation_checkpointing(model, "nope")


def test_lazy_parts_forget_what_was_built_from_another_config() -> None:
    class Owner:
        part = LazyPart(nn.Module)

    assert isinstance(Owner.part, LazyPart)
    owner = Owner()
    assert owner.part is None
    owner.part = {"type": "Linear"}
    assert owner._built_part is None
    owner.part = built = nn.Linear(1, 1)
    assert owner.part is owner._built_part is built
    owner.part = None
    assert owner.part is None


def test_same_compares_by_content() -> None:
    assert same({"a": (1, np.arange(2))}, {"a": [1, np.arange(2)]})
    assert same(torch.ones(2), np.ones(2))
    assert not same({"a": 1}, {"b": 1})
    assert not same([1, 2], [1])
    assert not same(np.arange(2), 3)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_first_ctrl_c_asks_and_the_second_one_stops(capfd: Any) -> None:
    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt), interrupt:
        press()
        assert interrupt.requested
        press()
    assert "finishing the running iteration" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupt:
        assert not interrupt.requested


def test_nested_entries_share_one_handler() -> None:
    interrupt = Interrupt()
    with interrupt:
        with interrupt:
            press()
        assert interrupt.requested
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def test_foreign_handlers_and_other_threads_are_left_alone() -> None:
    def own(number: int, frame: Any) -> None:
        return None

    previous = signal.signal(signal.SIGINT, own)
    try:
        with Interrupt():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, previous)
    thread = threading.Thread(target=lambda: Interrupt().__enter__().__exit__(None, None, None))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
