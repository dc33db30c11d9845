"""LazyPart: an attribute that reads as its config until the part is built from it."""

from __future__ import annotations

from typing import Any


class LazyPart:
    """A descriptor that keeps the config and the built part apart and shows the latest of both.

    Assigning a dict, list, tuple or None sets the config (and forgets what was built), assigning
    anything else sets the built part. With `built_types`, only those types count as built.
    """

    def __init__(self, config_types: tuple[type, ...] = (dict, list, tuple)) -> None:
        self._config_types = config_types

    def __set_name__(self, owner: type, name: str) -> None:
        self._given = f"{name} as given"
        self._built = f"{name} as built"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        values = instance.__dict__
        built = values.get(self._built)
        return values.get(self._given) if built is None else built

    def __set__(self, instance: Any, value: Any) -> None:
        values = instance.__dict__
        if value is None or isinstance(value, self._config_types):
            values[self._given] = value
            values[self._built] = None
        else:
            values[self._built] = value

    def given(self, instance: Any) -> Any:
        """The config, also after the part was built."""
        return instance.__dict__.get(self._given)
