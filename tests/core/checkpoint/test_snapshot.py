"""What the device is told, with a stand-in for the device; the copies are tested in test_writer."""

import pytest
import torch

from fake_streams import CPU, Stream, put_in_place
from fasttrain.core.checkpoint import CheckpointError, snapshot
from fasttrain.core.checkpoint.watch import Watch


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return put_in_place(monkeypatch)


def make_optimizer(stream: Stream) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.register_step_post_hook(lambda *_: stream.log.append("step"))
    return optimizer


def storages() -> tuple[list[torch.UntypedStorage], list[torch.UntypedStorage]]:
    sources = [torch.arange(6).untyped_storage(), torch.ones(3).untyped_storage()]
    sizes = [source.nbytes() for source in sources]
    return sources, [torch.zeros(size, dtype=torch.uint8).untyped_storage() for size in sizes]


def test_copies_are_ordered(stream: Stream) -> None:
    optimizer = make_optimizer(stream)
    sources, targets = storages()
    pairs = list(zip(sources, targets, strict=True))
    watch = Watch.of(optimizer)
    done = snapshot._copy_beside(CPU, pairs, {sources[1]._cdata}, [watch])
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


def test_a_torn_copy_is_not_written(stream: Stream) -> None:
    optimizer = make_optimizer(stream)
    weight = optimizer.param_groups[0]["params"][0]
    sources = [weight.untyped_storage()]
    targets = [torch.zeros(4, dtype=torch.uint8).untyped_storage()]
    for _ in range(2):  # the first save only looks; the second one trusts
        wait = snapshot._copy_from_gpu(sources, targets, [optimizer])
        wait()
        weight.grad = torch.ones(1)
        optimizer.step()
    wait = snapshot._copy_from_gpu(sources, targets, [optimizer])
    with torch.no_grad():
        weight.clamp_(-0.5, 0.5)
    with pytest.raises(CheckpointError, match=r"1 of 1 parameters .*order_after_copies"):
        wait()
