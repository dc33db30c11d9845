"""What the device is told, with a stand-in for the device; the copies are tested in test_writer."""

import copy
from contextlib import nullcontext

import pytest
import torch

from fasttrain.core.checkpoint import order_after_copies, snapshot

CPU = torch.device("cpu")


class Event:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def synchronize(self) -> None:
        self.log.append("waited on the host")


class Stream:
    def __init__(self, log: list | None = None) -> None:
        self.log: list = [] if log is None else log

    def wait_event(self, event: object) -> None:
        self.log.append("an event" if isinstance(event, Event) else event)

    def wait_stream(self, stream: object) -> None:
        self.log.append("the stream")

    def record_event(self) -> Event:
        return Event(self.log)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(stream.log))
    monkeypatch.setattr(torch.cuda, "stream", lambda side: nullcontext())
    return stream


def make_optimizer(stream: Stream) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.register_step_post_hook(lambda *_: stream.log.append("step"))
    return optimizer


def test_a_step_waits_for_each_copy_once(stream: Stream) -> None:
    optimizer = make_optimizer(stream)
    snapshot._CopiesUnderWay.of(optimizer).add(CPU, "copy 1")
    snapshot._CopiesUnderWay.of(optimizer).add(CPU, "copy 2")
    optimizer.step()
    optimizer.step()
    assert stream.log == ["copy 2", "copy 1", "step", "step"]


def test_other_changes_wait_too_and_the_step_no_more(stream: Stream) -> None:
    one, other = make_optimizer(stream), make_optimizer(stream)
    snapshot._CopiesUnderWay.of(one).add(CPU, "copy")
    order_after_copies([other])
    assert stream.log == []
    order_after_copies([other, one])
    order_after_copies([one])
    one.step()
    assert stream.log == ["copy", "step"]


def test_a_copied_optimizer_waits_for_nothing(stream: Stream) -> None:
    optimizer = make_optimizer(stream)
    snapshot._CopiesUnderWay.of(optimizer).add(CPU, "copy")
    order_after_copies([copy.deepcopy(optimizer)])
    assert stream.log == []


def storages() -> tuple[list[torch.UntypedStorage], list[torch.UntypedStorage]]:
    sources = [torch.arange(6).untyped_storage(), torch.ones(3).untyped_storage()]
    sizes = [source.nbytes() for source in sources]
    return sources, [torch.zeros(size, dtype=torch.uint8).untyped_storage() for size in sizes]


def test_copies_are_ordered(stream: Stream) -> None:
    optimizer = make_optimizer(stream)
    sources, targets = storages()
    pairs = list(zip(sources, targets, strict=True))
    done = snapshot._copy_beside(CPU, pairs, {sources[1]._cdata}, [optimizer])
    assert stream.log == ["the stream", "an event"]  # the side stream; what no optimizer guards
    assert [target.tolist() for target in targets] == [source.tolist() for source in sources]
    optimizer.step()
    assert stream.log[2:] == ["an event", "step"]
    done.synchronize()


def test_host_storages_are_copied_at_once(stream: Stream) -> None:
    sources, targets = storages()
    snapshot._copy_from_gpu(sources, targets, [make_optimizer(stream)])()
    assert [target.tolist() for target in targets] == [source.tolist() for source in sources]
    assert stream.log == []
