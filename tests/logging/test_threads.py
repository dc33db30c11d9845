"""Several threads write into one hub while others flush, read and save it."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain import native
from fasttrain.logging import MessageHub
from fasttrain.logging.buffer_view import snapshot
from fasttrain.runner import LogProcessor
from slow_device import SlowReader

NUM_WRITERS, NUM_STEPS = 4, 150


@pytest.fixture(params=["1", "0"], ids=["compiled", "arrays"], autouse=True)
def _implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "1" and not native.available():
        pytest.skip("the compiled module is not built")
    monkeypatch.setenv("FASTTRAIN_NATIVE", request.param)


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Switch between threads, and collect garbage, far more often than usual."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-5)
    gc.callbacks.append(_pause)
    gc.set_threshold(50, 1000, 1000)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks.remove(_pause)
    sys.setswitchinterval(interval)


def _pause(phase: str, info: dict[str, int]) -> None:
    """Python code, as a finalizer is, that lets other threads in."""
    time.sleep(0)


def run_all(*works: Callable[[], Any]) -> None:
    """Run all in threads of their own; raise the first error."""
    errors: list[BaseException] = []

    def guard(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=guard, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"
    if errors:
        raise errors[0]


def writer(hub: MessageHub, number: int) -> Callable[[], None]:
    """Puts in numbers and tensors of all kinds, under names of its own and one of all."""

    def work() -> None:
        for step in range(NUM_STEPS):
            value = torch.tensor(float(step))
            hub.update_scalars({f"{number}/loss": value, f"{number}/whole": torch.tensor(step)})
            hub.update_scalar(f"{number}/lr", step * 0.5)
            hub.update_prefixed(f"{number}/", {"acc": {"value": value, "count": 2}, "n": step})
            hub.update_scalar("all", 1.0)
            hub.update_scalar(f"{number}/new{step % 20}", value)
            hub.update_info(f"{number}/note{step % 20}", step)

    return work


@pytest.mark.parametrize("slow", [False, True])
def test_nothing_is_lost_or_mixed_up(slow: bool) -> None:
    reader = SlowReader() if slow else None
    hub = MessageHub(f"threads {slow}", reader=reader)
    hub.update_scalar("0/time", 1.0)
    done = threading.Event()
    told: list[int] = []

    def flush() -> None:
        while not done.is_set():
            hub.begin_flush(partial(told.append, len(told)))
            time.sleep(0)
            if reader is not None:
                reader.land()
            hub.flush()

    def read() -> None:
        processor = LogProcessor()
        while not done.is_set():
            hub.state_dict()
            processor._collect_scalars([], _Run(hub), "0")
            processor._collect_non_scalars(_Run(hub), "0")

    def write() -> None:
        try:
            run_all(*(writer(hub, number) for number in range(NUM_WRITERS)))
        finally:
            done.set()

    run_all(write, flush, read)
    hub.flush()
    steps = [float(step) for step in range(NUM_STEPS)]
    for number in range(NUM_WRITERS):
        for name in ("loss", "whole", "n"):
            assert hub.get_scalar(f"{number}/{name}").data[0].tolist() == steps, name
        assert hub.get_scalar(f"{number}/lr").data[0].tolist() == [0.5 * step for step in steps]
        values, counts = hub.get_scalar(f"{number}/acc").data
        assert values.tolist() == steps and set(counts) == {2.0}
        news = [hub.get_scalar(f"{number}/new{i}").data[0].tolist() for i in range(20)]
        assert sorted(value for values in news for value in values) == steps
    assert hub.get_scalar("all").mean() == 1.0
    assert len(hub.get_scalar("all").data[0]) == NUM_WRITERS * NUM_STEPS
    assert told == sorted(told) and not hub.pending


@pytest.mark.parametrize("slow", [False, True])
def test_a_name_shows_with_its_first_value(slow: bool) -> None:
    reader = SlowReader() if slow else None
    hub = MessageHub(f"first {slow}", reader=reader)
    done = threading.Event()
    empty: list[str] = []

    def read() -> None:
        seen = 0
        while not done.is_set():
            for name, buffer in snapshot(hub.log_scalars)[seen:]:
                seen += 1
                if not len(buffer.data[0]):
                    empty.append(name)

    def write() -> None:
        try:
            for step in range(600):
                hub.update_scalars({f"a{step}": torch.tensor(1.0), f"b{step}": step})
                hub.update_scalar(f"c{step}", 1)
                hub.update_scalar(f"d{step}", 1.0)
                hub.update_later(f"e{step}", _Known())
        finally:
            done.set()

    run_all(read, write)
    assert not empty and len(hub.log_scalars) == 3000


class _Known:
    """A number that a device has told already."""

    def ready(self) -> bool:
        return True

    def resolve(self) -> float:
        return 1.0


class _Run:
    def __init__(self, hub: MessageHub) -> None:
        self.message_hub = hub


def test_who_reads_sees_his_own_while_another_tells() -> None:
    hub = MessageHub("telling", reader=SlowReader())
    telling, seen = threading.Event(), threading.Event()
    hub.update_scalar("a", torch.tensor(1.0))

    def tell() -> None:
        telling.set()
        seen.wait(0.2)  # the other cannot read now, but shall not read something old

    def other() -> None:
        telling.wait(10)
        hub.update_scalar("b", torch.tensor(2.0))
        assert hub.get_scalar("b").current() == 2.0
        seen.set()

    flush = hub.begin_flush(tell)
    run_all(flush.finish, other)
    assert seen.is_set()


OPERATIONS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["tensor", "float", "many", "flush", "begin"])),
    max_size=40,
)


@settings(max_examples=20, deadline=None)
@given(operations=OPERATIONS, land=st.booleans())
def test_any_order_of_any_threads_keeps_each_ones_order(
    operations: list[tuple[int, str]], land: bool
) -> None:
    reader = SlowReader()
    hub = MessageHub("orders", reader=reader)

    def thread(mine: int) -> Callable[[], None]:
        def work() -> None:
            for step, (owner, operation) in enumerate(operations):
                if owner != mine:
                    continue
                if operation == "tensor":
                    hub.update_scalar(f"{mine}", torch.tensor(float(step)))
                elif operation == "float":
                    hub.update_scalar(f"{mine}", float(step))
                elif operation == "many":
                    hub.update_scalars({f"{mine}": torch.tensor(float(step)), "x": step})
                elif operation == "flush":
                    hub.flush()
                else:
                    hub.begin_flush()
                if land:
                    reader.land()

        return work

    run_all(*(thread(mine) for mine in range(3)))
    hub.flush()
    puts = ("tensor", "float", "many")
    for mine in range(3):
        steps = [float(i) for i, (own, op) in enumerate(operations) if own == mine and op in puts]
        assert (f"{mine}" in hub.log_scalars) == bool(steps)
        if steps:
            assert hub.get_scalar(f"{mine}").data[0].tolist() == steps
