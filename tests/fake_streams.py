"""Stand-ins for a GPU's streams and events that note what they are told, for tests of orders."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

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


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The stream that is current from now on."""
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(stream.log))
    monkeypatch.setattr(torch.cuda, "stream", lambda side: nullcontext())
    return stream
