"""A dict whose keys are attributes too, nested dicts included."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from fasttrain.utils.misc import map_sequence

from .language import DELETE_KEY
from .lazy import LazyAttr, LazyObject
from .merging import without_delete_keys


def build_lazy(value: Any) -> Any:
    """Import what a lazily imported object stands for; any other value stays as it is."""
    return value.build() if isinstance(value, LazyObject | LazyAttr) else value


class ConfigDict(dict):  # type: ignore[type-arg]
    """A dict with attribute access; dicts put into it, also within lists and tuples, become such.

    A missing attribute raises `AttributeError`, a missing key `KeyError`. A lazily imported
    object that is a value is imported when it is read, by whatever method.
    """

    __slots__ = ()

    lazy = False  # whether values are left unimported when they are read

    def __init__(__self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for arg in args:
            if arg:
                is_pair = isinstance(arg, tuple) and len(arg) == 2 and isinstance(arg[0], str)
                for key, value in _raw_items([arg] if is_pair else arg):
                    __self[key] = value
        for key, value in kwargs.items():
            __self[key] = value

    # Writing: every value goes through __setitem__.

    def __setitem__(self, name: Any, value: Any) -> None:
        super().__setitem__(name, self._hook(value))

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object attribute {name!r} is read-only")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    @classmethod
    def _hook(cls, item: Any) -> Any:
        """Turn plain dicts into this class; other dict classes stay what they are."""
        if type(item) in (dict, OrderedDict):
            return cls(item)
        return map_sequence(cls._hook, item) if isinstance(item, list | tuple) else item

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take over values; a dict that meets a dict under the same key updates it in turn."""
        if len(args) > 1:
            raise TypeError(f"update only accept one positional argument, but got {len(args)}")
        for key, value in [*_raw_items(args[0] if args else {}), *kwargs.items()]:
            existing = super().get(key)
            if isinstance(existing, dict) and isinstance(value, dict):
                existing.update(value)
            else:
                self[key] = value

    def merge(self, other: dict[Any, Any]) -> None:
        """Take over values as a child config overrides its base, `_delete_` included.

        A dict that meets something else replaces it.
        """
        if dict.get(other, DELETE_KEY, False):
            self.clear()
        for key, value in _raw_items(other):
            existing = super().get(key)
            if key == DELETE_KEY:
                continue
            if isinstance(existing, ConfigDict) and isinstance(value, dict):
                existing.merge(value)
            else:
                self[key] = without_delete_keys(value)

    def __or__(self, other: Any) -> ConfigDict:  # type: ignore[override]
        if not isinstance(other, Mapping):
            return NotImplemented
        result = to_config_dict(self, kind=type(self))
        result.update(other)
        return result

    def __ror__(self, other: Any) -> ConfigDict:  # type: ignore[override]
        if not isinstance(other, Mapping):
            return NotImplemented
        return type(self)(other) | self

    def __ior__(self, other: Any) -> ConfigDict:  # type: ignore[override, misc]
        self.update(other)
        return self

    # Reading: every value goes through build_lazy.

    def build_lazy(self, value: Any) -> Any:
        """Import what a lazily imported object stands for, unless this dict is `lazy`."""
        return build_lazy(value)

    def __getitem__(self, key: Any) -> Any:
        return self.build_lazy(super().__getitem__(key))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as e:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from e

    def get(self, key: Any, default: Any = None) -> Any:
        return self.build_lazy(super().get(key, default))

    def pop(self, key: Any, default: Any = None) -> Any:
        """Remove a key and return its value; `default` when there is no such key."""
        return self.build_lazy(super().pop(key, default))

    def values(self) -> list[Any]:  # type: ignore[override]
        return [self.build_lazy(value) for value in super().values()]

    def items(self) -> list[tuple[Any, Any]]:  # type: ignore[override]
        return [(key, self.build_lazy(value)) for key, value in super().items()]

    def __iter__(self) -> Iterator[Any]:
        # Own method on purpose: with it, `**cfg` and `dict(cfg)` read through __getitem__.
        return super().__iter__()

    # Copies.

    def copy(self) -> ConfigDict:
        other = type(self)()
        for key, value in super().items():
            dict.__setitem__(other, key, value)
        return other

    __copy__ = copy

    def deepcopy(self) -> ConfigDict:
        """A copy that shares nothing with this dict."""
        import copy

        return copy.deepcopy(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (), None, None, iter(super().items())

    def to_dict(self) -> dict[Any, Any]:
        """A plain dict, nested ones too; what is imported lazily appears as its import path."""
        return _plain(self, as_path=True)

    def _to_lazy_dict(self) -> dict[Any, Any]:
        """A plain dict, nested ones too, with the lazily imported objects not yet imported."""
        return _plain(self, as_path=False)


class UnreadConfigDict(ConfigDict):
    """A ConfigDict whose values are not imported when read: the form within a config file."""

    __slots__ = ()

    lazy = True

    def build_lazy(self, value: Any) -> Any:
        return value


def _raw_items(source: Any) -> Any:
    """Key-value pairs of a mapping, lazily imported objects as they are, or of pairs."""
    if isinstance(source, dict):
        return list(dict.items(source))
    return source.items() if hasattr(source, "items") else source


def _plain(value: Any, *, as_path: bool) -> Any:
    if isinstance(value, ConfigDict) or type(value) is dict:
        return {key: _plain(item, as_path=as_path) for key, item in dict.items(value)}
    if isinstance(value, list | tuple):
        return map_sequence(partial(_plain, as_path=as_path), value)
    if as_path and isinstance(value, LazyObject | LazyAttr):
        return value.dotted_path
    return value


def to_config_dict(
    value: Any,
    scope: str | None = None,
    *,
    mark: bool = True,
    kind: type[ConfigDict] = ConfigDict,
) -> Any:
    """Rebuild a nested value with ConfigDicts in place of dicts, sharing no container with it.

    Args:
        value: dicts, lists and tuples are rebuilt; anything else is kept.
        scope: written as `_scope_` into the outermost dicts that have a `type`.
        mark: False within a dict that has a `type`, whose scope counts for all below it.
        kind: the class to use.
    """
    if isinstance(value, list | tuple):
        return map_sequence(partial(to_config_dict, scope=scope, mark=mark, kind=kind), value)
    if not (isinstance(value, ConfigDict) or type(value) in (dict, OrderedDict)):
        return value
    mark_this = mark and "type" in value
    rebuilt = kind()
    for key, item in dict.items(value):
        item = to_config_dict(item, scope, mark=mark and not mark_this, kind=kind)
        dict.__setitem__(rebuilt, key, item)
    if mark_this and scope is not None and "_scope_" not in value:
        dict.__setitem__(rebuilt, "_scope_", scope)
    return rebuilt
