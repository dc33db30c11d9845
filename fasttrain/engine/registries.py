"""The engine face's registries: a name in the config stands for a callable that takes it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from fasttrain.engine.config import as_config


class Registry:
    """Name -> class or function.

    Args:
        name: what is registered, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, *, name: str | None = None) -> Any:
        """Register `obj` under its own or a given name; without `obj`, a decorator."""
        if obj is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or obj.__name__
        if self._objects.get(key, obj) is not obj:
            raise KeyError(f"{key!r} is already registered in the {self._name} registry")
        self._objects[key] = obj
        return obj

    def get(self, name: str) -> Any:
        """What `name` stands for.

        Raises:
            KeyError: nothing of that name; the message tells the nearest ones.
        """
        try:
            return self._objects[name]
        except KeyError as e:
            near = difflib.get_close_matches(name, self._objects, n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {sorted(self._objects)}"
            raise KeyError(
                f"no {name!r} in the {self._name} registry ({hint}); register it with "
                f"@{self._name}_REGISTRY.register() before it is built"
            ) from e

    def __contains__(self, name: str) -> bool:
        return name in self._objects

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._objects.items())


ENGINE_REGISTRY = Registry("ENGINE")
META_ARCH_REGISTRY = Registry("META_ARCH")
SOLVER_REGISTRY = Registry("SOLVER")
LR_SCHEDULER_REGISTRY = Registry("LR_SCHEDULER")
LOSSES_REGISTRY = Registry("LOSSES")
SCORER_REGISTRY = Registry("SCORER")
EVALUATION_REGISTRY = Registry("EVALUATION")
DATASETS_REGISTRY = Registry("DATASETS")


def build_engine(cfg: Any) -> Any:
    """The trainer that `cfg.ENGINE.NAME` names, built from the config."""
    cfg = as_config(cfg)
    builder: Callable[[Any], Any] = ENGINE_REGISTRY.get(cfg.ENGINE.NAME)
    return builder(cfg)
