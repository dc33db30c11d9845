import math

import numpy as np
import pytest
import torch

from fasttrain.core import pending
from fasttrain.core.history import Series
from fasttrain.core.pending import PendingQueue
from fasttrain.core.transfer import DeviceTransfer
from slow_device import SlowReader


class Clock:
    """A number that a device knows later."""

    def __init__(self, number: float) -> None:
        self.number, self.known = number, False

    def ready(self) -> bool:
        return self.known

    def resolve(self) -> float:
        return self.number


@pytest.fixture
def reader() -> SlowReader:
    return SlowReader()


@pytest.fixture
def queue(reader: SlowReader) -> PendingQueue:
    return PendingQueue(reader)


def test_one_copy_for_many_types(queue: PendingQueue, reader: SlowReader) -> None:
    one, two = Series(queue=queue), Series(queue=queue)
    for step in range(3):
        tensors = [torch.tensor(0.5 + step), torch.tensor([step], dtype=torch.int64)]
        queue.put_tensors([one, two], tensors, [1.0, 2.0], step)
    queue.flush()
    assert len(reader.transfers) == 1
    assert one.values().tolist() == [0.5, 1.5, 2.5]
    assert two.values().tolist() == [0.0, 1.0, 2.0]
    assert two.counts().tolist() == [2.0, 2.0, 2.0]
    assert two.ring.integral and not one.ring.integral


def test_values_are_those_of_the_put(queue: PendingQueue) -> None:
    series = Series(queue=queue)
    running = torch.zeros(())
    for _ in range(3):
        running += 1
        series.append(running)
    assert series.values().tolist() == [1.0, 2.0, 3.0]


def test_no_graph_is_held(queue: PendingQueue) -> None:
    weight = torch.ones((), requires_grad=True)
    Series(queue=queue).append(weight * 2)
    entry = queue._waiting[0]
    assert isinstance(entry, pending._Vector)
    assert entry.row.data.grad_fn is None and not entry.row.data.requires_grad


@pytest.mark.parametrize("shape", [(0,), (2,)])
def test_wrong_shapes_are_refused_at_once(queue: PendingQueue, shape: tuple[int]) -> None:
    with pytest.raises(ValueError, match="exactly one element"):
        Series(queue=queue).append(torch.zeros(shape))
    assert not queue.busy


def test_complex_is_refused_at_once(queue: PendingQueue) -> None:
    with pytest.raises(TypeError, match=r"a real number, got a tensor of torch\.complex64"):
        Series(queue=queue).append(torch.tensor(1j))
    assert not queue.busy


def test_flushes_finish_in_their_order(queue: PendingQueue, reader: SlowReader) -> None:
    series = Series(queue=queue)
    told: list[list[float]] = []

    def tell() -> None:
        told.append(series.values().tolist())

    flushes = []
    for step in range(3):
        series.append(torch.tensor(float(step)))
        series.append(step + 0.5)
        flushes.append(queue.begin(tell))
    assert told == [] and not flushes[0].ready()
    reader.transfers[2].landed = True
    assert flushes[2].ready() and not flushes[1].ready()
    flushes[1].finish()
    assert told == [[0.0, 0.5], [0.0, 0.5, 1.0, 1.5]]
    assert queue.busy
    flushes[2].finish()
    assert told[2] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert not queue.busy
    flushes[0].finish()
    assert len(told) == 3


def test_reading_finishes_what_is_under_way(queue: PendingQueue, reader: SlowReader) -> None:
    series = Series(queue=queue)
    told: list[int] = []
    series.append(torch.tensor(1.0))
    queue.begin(lambda: told.append(len(series)))
    series.append(torch.tensor(2.0))
    series.append(3.0)
    assert series.values().tolist() == [1.0, 2.0, 3.0]
    assert told == [1], "the teller must see the moment of its flush, not later puts"


def test_nothing_waiting_tells_at_once(queue: PendingQueue, reader: SlowReader) -> None:
    told: list[bool] = []
    flush = queue.begin(lambda: told.append(True))
    assert flush.done and flush.ready() and told == [True]
    assert not reader.transfers and not queue.busy


def test_a_teller_that_raises_leaves_the_queue_whole(queue: PendingQueue) -> None:
    series = Series(queue=queue)

    def refuse() -> None:
        raise FloatingPointError("stop")

    series.append(torch.tensor(1.0))
    queue.begin(refuse)
    series.append(torch.tensor(2.0))
    with pytest.raises(FloatingPointError, match="stop"):
        queue.flush()
    assert series.values().tolist() == [1.0, 2.0]
    assert not queue.busy


def test_later_numbers_hold_the_flush(queue: PendingQueue) -> None:
    series, clock = Series(queue=queue), Clock(0.25)
    queue.put_host(series, clock, 1.0, 0)
    flush = queue.begin()
    assert not flush.done and not flush.ready()
    clock.known = True
    assert flush.ready()
    flush.finish()
    assert series.values().tolist() == [0.25]


def test_nonfinite_numbers_are_told_with_their_step(reader: SlowReader) -> None:
    told: list[tuple[str, int]] = []
    queue = PendingQueue(reader, lambda series, step: told.append((series.name, step)))
    series = Series(queue=queue, name="loss")
    for step, number in enumerate([1.0, math.nan, 2.0, math.inf]):
        series.append(torch.tensor(number), 1.0, step)
    series.append(-math.inf, 1.0, 9)
    assert told == []
    queue.flush()
    assert told == [("loss", 1), ("loss", 3), ("loss", 9)]


def test_an_unread_queue_stays_small(
    queue: PendingQueue, reader: SlowReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MAX_WAITING", 10)
    series = Series(queue=queue)
    for step in range(35):
        series.append(torch.tensor(float(step)))
        assert len(queue._waiting) < 10 and len(queue._flights) <= 1
    assert series.values().tolist() == list(map(float, range(35)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_is_read_without_a_sync() -> None:
    queue = PendingQueue()
    series, whole = Series(queue=queue), Series(queue=queue)
    value = torch.ones((), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(50):
            value = value * 1.01
            tensors = [value, torch.full((1,), step, device="cuda")]
            queue.put_tensors([series, whole], tensors, [1.0, 1.0], step)
            if step % 10 == 9:
                flush = queue.begin()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(flush._transfer, DeviceTransfer)
    flush.finish()
    assert not queue.busy
    np.testing.assert_allclose(series.values(), 1.01 ** np.arange(1, 51), rtol=1e-4)
    assert whole.values().tolist() == list(range(50)) and whole.ring.integral
