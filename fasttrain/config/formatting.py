"""Python text of a config: stable, readable, and the same config when it is run."""

from __future__ import annotations

import keyword
import math
from typing import Any

from .lazy import LazyAttr, LazyObject

_INDENT = 4


def format_config(cfg: dict[Any, Any], width: float = 80) -> str:
    """The text of a config file that says what `cfg` says.

    Args:
        cfg: keys are written in sorted order.
        width: longest line that holds more than one value; infinity puts each key on one line.
    """
    lines = []
    for key in sorted(cfg, key=str):
        # Names that Python cannot assign to still reach the file's namespace.
        target = key if _is_name(key) else f"globals()[{key!r}]"
        lines.append(_format(cfg[key], f"{target} = ", "", 0, width))
    return "".join(f"{line}\n" for line in lines)


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def _format(value: Any, before: str, after: str, depth: int, width: float) -> str:
    """One value with what stands before and after it: on one line if that fits, else exploded."""
    margin = " " * _INDENT * depth
    flat = f"{margin}{before}{_flat(value)}{after}"
    if len(flat) <= width or not _is_container(value) or not value:
        return flat
    opening, closing, items = _parts(value)
    lines = [_format(item, key, ",", depth + 1, width) for key, item in items]
    return "\n".join([f"{margin}{before}{opening}", *lines, f"{margin}{closing}{after}"])


def _flat(value: Any) -> str:
    if not _is_container(value):
        return format_scalar(value)
    opening, closing, items = _parts(value)
    inner = ", ".join(f"{key}{_flat(item)}" for key, item in items)
    if isinstance(value, tuple) and len(items) == 1:
        inner += ","
    return f"{opening}{inner}{closing}"


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list | tuple) or (
        isinstance(value, set | frozenset) and bool(value)
    )


def _parts(value: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    """Opening and closing text of a container, and its items with the text before each."""
    if isinstance(value, dict):
        keys = sorted(value, key=str)
        if all(_is_name(key) for key in keys):
            return "dict(", ")", [(f"{key}=", value[key]) for key in keys]
        return "{", "}", [(f"{format_scalar(key)}: ", value[key]) for key in keys]
    if isinstance(value, set | frozenset):
        ordered = [("", item) for item in sorted(value, key=repr)]
        return ("{", "}", ordered) if isinstance(value, set) else ("frozenset({", "})", ordered)
    opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
    return opening, closing, [("", item) for item in value]


def format_scalar(value: Any) -> str:
    """Python text of a value that holds no others.

    Classes and functions appear as their import path, which a registry resolves; what has no
    text of its own in Python appears as a string.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or value is Ellipsis or type(value) in _LITERALS:
        return repr(value)
    return repr(scalar_text(value))


_LITERALS = (bool, int, float, complex, str, bytes, range, slice, set, frozenset)


def scalar_text(value: Any) -> str:
    """A string for a value that a config file has no notation for."""
    if isinstance(value, LazyObject | LazyAttr):
        return value.dotted_path
    if isinstance(value, type) or callable(value):
        name = getattr(value, "__qualname__", None)
        module = getattr(value, "__module__", None)
        if name and module:
            return f"{module}.{name}"
    return str(value)
