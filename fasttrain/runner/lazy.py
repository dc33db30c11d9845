"""LazyPart: an attribute that reads as its config until the part is built from it."""

from __future__ import annotations

from typing import Any


class LazyPart:
    """A descriptor that keeps the config and the built part apart and shows the latest of both.

    Assigning an object of one of the types sets the built part, assigning anything else sets the
    config and forgets what was built. The built part, or None, is also there under the plain
    attribute `_built_<name>`, which costs nothing to read.
    """

    def __init__(self, *built_types: type) -> None:
        self._built_types = built_types

    def __set_name__(self, owner: type, name: str) -> None:
        self._given = f"_given_{name.lstrip('_')}"
        self._built = f"_built_{name.lstrip('_')}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        values = instance.__dict__
        built = values.get(self._built)
        return values.get(self._given) if built is None else built

    def __set__(self, instance: Any, value: Any) -> None:
        values = instance.__dict__
        if isinstance(value, self._built_types):
            values[self._built] = value
        else:
            values[self._given] = value
            values[self._built] = None
