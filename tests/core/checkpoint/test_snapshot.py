"""What the device is told, with a stand-in for the device; the copies are tested in test_writer."""

import copy

import pytest
import torch

from fasttrain.core.checkpoint import order_after_copies, snapshot


class Stream:
    def __init__(self) -> None:
        self.log: list[str] = []

    def wait_event(self, event: str) -> None:
        self.log.append(event)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    return stream


def make_optimizer(stream: Stream) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.register_step_post_hook(lambda *_: stream.log.append("step"))
    return optimizer


def test_a_step_waits_for_each_copy_once(stream: Stream) -> None:
    optimizer = make_optimizer(stream)
    snapshot._CopiesUnderWay.of(optimizer).add("copy 1")
    snapshot._CopiesUnderWay.of(optimizer).add("copy 2")
    optimizer.step()
    optimizer.step()
    assert stream.log == ["copy 2", "copy 1", "step", "step"]


def test_other_changes_wait_too_and_the_step_no_more(stream: Stream) -> None:
    one, other = make_optimizer(stream), make_optimizer(stream)
    snapshot._CopiesUnderWay.of(one).add("copy")
    order_after_copies([other])
    assert stream.log == []
    order_after_copies([other, one])
    order_after_copies([one])
    one.step()
    assert stream.log == ["copy", "step"]


def test_a_copied_optimizer_waits_for_nothing(stream: Stream) -> None:
    optimizer = make_optimizer(stream)
    snapshot._CopiesUnderWay.of(optimizer).add("copy")
    order_after_copies([copy.deepcopy(optimizer)])
    assert stream.log == []
