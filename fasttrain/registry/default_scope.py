"""The scope in which names without a scope are looked up first."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from fasttrain.utils.manager import ManagerMixin

_OVERWRITES = itertools.count()


class DefaultScope(ManagerMixin):
    """Names the scope of the downstream package at work; the instance created last counts.

    Args:
        name: the instance's name.
        scope_name: a registry scope such as `"mmdet"`.
    """

    def __init__(self, name: str, scope_name: str) -> None:
        super().__init__(name)
        assert isinstance(scope_name, str), f"scope_name should be a string, but got {scope_name}"
        self._scope_name = scope_name

    @property
    def scope_name(self) -> str:
        """The registry scope."""
        return self._scope_name

    @classmethod
    def get_current_instance(cls) -> Any:
        """Return the instance in force, or None when no default scope was set."""
        return super().get_current_instance() if cls._instance_dict else None

    @classmethod
    @contextmanager
    def overwrite_default_scope(cls, scope_name: str | None) -> Generator[None, None, None]:
        """Put `scope_name` in force within the context; None leaves the scope as it is.

        Default scopes that were set within the context go with it.
        """
        if scope_name is None:
            yield
            return
        before = cls._instance_dict
        cls._instance_dict = before.copy()
        cls.get_instance(f"overwrite-{next(_OVERWRITES)}", scope_name=scope_name)
        try:
            yield
        finally:
            cls._instance_dict = before
