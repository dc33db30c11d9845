import pytest
import torch

from fasttrain.core.clock import DeviceClock, Lap


class Event:
    """An event that a device passes when a test says so."""

    def __init__(self, at_s: float) -> None:
        self.at_s, self.passed, self.waited = at_s, False, False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.waited = not self.passed
        self.passed = True

    def elapsed_time(self, end: "Event") -> float:
        assert self.at_s <= end.at_s and end.passed
        return (end.at_s - self.at_s) * 1e3


def test_a_lap_is_known_when_its_end_is_passed() -> None:
    start, end = Event(1.0), Event(1.25)
    lap = Lap(start, end)
    assert not lap.ready()
    end.passed = True
    assert lap.ready() and lap.resolve() == 0.25 and not end.waited
    assert Lap(start, Event(2.0)).resolve() == 1.0


def test_laps_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = iter([Event(0.0), Event(0.5), Event(2.0)])
    device = DeviceClock()
    monkeypatch.setattr(device, "_mark", lambda: next(marks))
    device.start()
    assert [device.lap().resolve(), device.lap().resolve()] == [0.5, 1.5]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_laps_of_a_gpu_cause_no_sync() -> None:
    device = DeviceClock()
    torch.cuda.set_sync_debug_mode("error")
    try:
        device.start()
        torch.cuda._sleep(20_000_000)
        lap = device.lap()
        assert not lap.ready()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 1e-3 < lap.resolve() < 1.0
