"""A runner as it was at one moment, for a log line that is written when its numbers arrive."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class Moment:
    """Shows a runner's progress and notes of the moment of its making, all else as it is now.

    The scalars need no copy: a flush shows them as they were when it was begun.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.iter = runner.iter
        self.epoch = runner.epoch
        self.message_hub = _HubMoment(runner.message_hub)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


class _HubMoment:
    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self.runtime_info = OrderedDict(hub.runtime_info)

    def get_info(self, key: str, default: Any = None) -> Any:
        return self.runtime_info.get(key, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)
