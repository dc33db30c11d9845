"""How a child config, or options given by hand, override a base."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from .language import DELETE_KEY, DEPRECATION_KEY

_NOTHING = object()


def merge_a_into_b(a: dict[Any, Any], b: Any, allow_list_keys: bool = False) -> Any:
    """Return `b` overridden by `a`; neither is changed.

    A dict that meets a dict under the same key is merged with it, unless it says
    `_delete_=True`; everything else replaces what it meets.

    Args:
        a: what overrides.
        b: a dict or, with `allow_list_keys`, a list.
        allow_list_keys: let `{"0": value}` in `a` stand for the entry 0 of a list in `b`.
    Raises:
        TypeError: a dict meets something that is not a dict.
        KeyError: a list is shorter than an index in `a` needs.
    """
    merged = b.copy()
    for key, value in dict.items(a):
        if isinstance(b, list):
            key = _checked_index(key, b)
            met = b[key]
        else:
            met = dict.get(b, key, _NOTHING)
        merged[key] = _overridden(key, value, met, allow_list_keys)
    return merged


def _overridden(key: Any, value: Any, met: Any, allow_list_keys: bool) -> Any:
    """What stands under `key` once `value` has overridden `met`."""
    if not isinstance(value, dict):
        return value
    if met is _NOTHING or dict.get(value, DELETE_KEY, False):
        return without_delete_keys(value)
    if isinstance(met, dict) or (allow_list_keys and isinstance(met, list)):
        overriding = {name: item for name, item in dict.items(value) if name != DELETE_KEY}
        return merge_a_into_b(overriding, met, allow_list_keys)
    raise TypeError(
        f"{key}={value} in child config cannot inherit from base because {key} is a dict "
        f"in the child config but is of type {type(met)} in base config. You may set "
        f"`{DELETE_KEY}=True` to ignore the base config."
    )


def _checked_index(key: Any, items: list[Any]) -> int:
    if not str(key).isdigit():
        raise TypeError(
            f"list indices must be integers, but got the key {key!r} for the list {items}"
        )
    if int(key) >= len(items):
        raise KeyError(f"Index {key} exceeds the length of list {items}")
    return int(key)


def without_delete_keys(value: Any) -> Any:
    """A copy of a nested dict in which `_delete_`, having no more to delete, is left out."""
    if not isinstance(value, dict):
        return value
    copied = value.copy()
    dict.pop(copied, DELETE_KEY, None)
    for key, item in dict.items(copied):
        dict.__setitem__(copied, key, without_delete_keys(item))
    return copied


def nested_options(options: dict[str, Any]) -> dict[str, Any]:
    """Turn `{"a.b": 1}` into `{"a": {"b": 1}}`."""
    nested: dict[str, Any] = {}
    for full_key, value in options.items():
        *path, last = str(full_key).split(".")
        inner = nested
        for key in path:
            below = inner.get(key, {})
            if not isinstance(below, dict):
                raise TypeError(
                    f"the option {full_key!r} needs a dict at {key!r}, which another option sets "
                    f"to {below!r}"
                )
            inner[key] = dict(dict.items(below))  # a copy: it may be the caller's
            inner = inner[key]
        inner[last] = value
    return nested


def join_bases(bases: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Put several base configs together.

    Args:
        bases: pairs of a file name and what the file says.
    Raises:
        KeyError: two bases have the same key.
    """
    joined: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for filename, cfg in bases:
        duplicates = joined.keys() & cfg.keys()
        if duplicates:
            first = sorted({origin[key] for key in duplicates})
            raise KeyError(
                "Duplicate key is not allowed among bases. "
                f"Duplicate keys: {duplicates} in {filename} and in {', '.join(first)}"
            )
        joined.update(dict.items(cfg))
        origin.update(dict.fromkeys(cfg, filename))
    return joined


def pop_deprecation(cfg: dict[str, Any], filename: str) -> None:
    """Take `_deprecation_` out of a config just read, and warn as it asks for."""
    notice = dict.pop(cfg, DEPRECATION_KEY, None)
    if notice is None:
        return
    message = f"The config file {filename} will be deprecated in the future."
    if "expected" in notice:
        message += f" Please use {notice['expected']} instead."
    if "reference" in notice:
        message += f" More information can be found at {notice['reference']}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
