"""The buffers of a message hub by name, as a dict that stays in step with the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar

from fasttrain.core.store import ScalarStore
from fasttrain.logging.history_buffer import HistoryBuffer

_Value = TypeVar("_Value")


def snapshot(mapping: Mapping[str, _Value]) -> list[tuple[str, _Value]]:
    """The items of `mapping` as they are now, though other threads put in names meanwhile.

    Raises:
        RuntimeError: names came in during each of very many tries.
    """
    for _ in range(1000):
        try:
            return list(mapping.items())
        except RuntimeError:  # changed during the copying, which collecting garbage interrupts
            continue
    return list(mapping.items())


class BufferView(OrderedDict[str, HistoryBuffer]):
    """The buffers of a hub by name; what is put in or taken out here enters or leaves the store."""

    def __init__(self, store: ScalarStore, buffers: Mapping[str, HistoryBuffer]) -> None:
        self._store = store
        super().__init__()
        self.update(buffers)

    def __setitem__(self, name: str, buffer: HistoryBuffer) -> None:
        super().__setitem__(name, buffer)
        if isinstance(buffer, HistoryBuffer):
            self._store.adopt(name, buffer._series)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._store.discard(name)

    def pop(self, name: str, *default: Any) -> Any:
        value = super().pop(name, *default)
        self._store.discard(name)
        return value

    def popitem(self, last: bool = True) -> tuple[str, HistoryBuffer]:
        name, buffer = super().popitem(last)
        self._store.discard(name)
        return name, buffer

    def clear(self) -> None:
        for name in list(self):
            self._store.discard(name)
        super().clear()

    def copy(self) -> Any:
        return OrderedDict(self)

    def __reduce__(self) -> Any:  # copies and pickles are plain: they belong to no store
        return OrderedDict, (list(self.items()),)

    def show(self, name: str) -> None:
        """Show a series that the store made."""
        super().__setitem__(name, HistoryBuffer.over(self._store.series(name)))
