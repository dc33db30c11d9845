"""An ordered list of hooks that keeps, for each stage, the calls that really do something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
Calls = tuple[Callable[..., Any], ...]


class HookList(MutableSequence[T], Generic[T]):
    """Hooks in stable (priority, registration) order, with one cached call list per stage.

    A call list is built when its stage is first asked for and dropped by every change of the list.
    A method that is put on a hook or its class later is seen after `invalidate()`.

    Args:
        is_noop: `is_noop(hook, stage)` tells that calling `stage` on `hook` would do nothing.
    """

    def __init__(self, is_noop: Callable[[T, str], bool] = lambda hook, stage: False) -> None:
        self._is_noop = is_noop
        self._hooks: list[T] = []
        self._priorities: list[int] = []
        self._calls: dict[str, Calls] = {}

    def add(self, hook: T, priority: int) -> None:
        """Put `hook` behind all hooks of the same or a smaller priority number."""
        index = len(self._hooks)
        while index and self._priorities[index - 1] > priority:
            index -= 1
        self._put(index, hook, priority)

    def stage(self, name: str) -> Calls:
        """The bound methods to call for a stage, in order; hooks that lack it are left out."""
        calls = self._calls.get(name)
        if calls is None:
            calls = self._calls[name] = tuple(
                getattr(hook, name)
                for hook in self._hooks
                if hasattr(hook, name) and not self._is_noop(hook, name)
            )
        return calls

    def invalidate(self) -> None:
        """Forget the call lists."""
        self._calls.clear()

    def insert(self, index: int, value: T) -> None:
        """Put a hook at a position; it takes the priority of the hook that stood there."""
        last = self._priorities[-1] if self._priorities else 0
        inside = -len(self._hooks) <= index < len(self._hooks)
        self._put(index, value, self._priorities[index] if inside else last)

    def replace(self, hooks: Iterable[T], priority: Callable[[T], int]) -> None:
        """Take over the order of `hooks` as it is, with the priorities that `priority` tells."""
        self._hooks = list(hooks)
        self._priorities = [priority(hook) for hook in self._hooks]
        self._calls.clear()

    def _put(self, index: int, hook: T, priority: int) -> None:
        self._hooks.insert(index, hook)
        self._priorities.insert(index, priority)
        self._calls.clear()

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._hooks[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            raise TypeError("a HookList takes no slice assignment; use replace()")
        self._hooks[index] = value
        self._calls.clear()

    def __delitem__(self, index: int | slice) -> None:
        del self._hooks[index]
        del self._priorities[index]
        self._calls.clear()

    def __len__(self) -> int:
        return len(self._hooks)

    def __iter__(self) -> Iterator[T]:
        return iter(self._hooks)

    def __eq__(self, other: object) -> bool:
        return self._hooks == (other._hooks if isinstance(other, HookList) else other)

    __hash__ = None  # type: ignore[assignment]  # compares by content

    def __repr__(self) -> str:
        return f"HookList({self._hooks!r})"
