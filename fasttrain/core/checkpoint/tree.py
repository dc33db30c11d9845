"""Turn a state into a plain tree that loads with `weights_only=True`, its tensors handed aside."""

from __future__ import annotations

import collections
import datetime
import enum
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Types whose values go into the file as they are.
_LEAVES = frozenset(
    {type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device}
)
_BASES: tuple[type, ...] = (bool, int, float, complex, str, bytes)


def plain_tree(state: Any, tensor: Callable[[Tensor], Any], *, root: str = "checkpoint") -> Any:
    """Copy `state` into fresh plain containers; each tensor becomes `tensor(it)`.

    Dict subclasses become dicts (OrderedDict and Counter stay), list and tuple subclasses lists and
    tuples, numpy scalars Python numbers, numeric arrays tensors, enums their values, paths and
    dates text, and objects with a `state_dict()` that dict.

    Raises:
        TypeError: an entry has no plain form; the text names the entry and its type.
        ValueError: a container contains itself.
    """
    try:
        return _Walker(tensor).convert(state, root)
    except RecursionError as error:
        raise ValueError(
            f"{root} is nested too deeply: does a container contain itself?"
        ) from error


class _Walker:
    """One walk; `path` tells where an entry stands and is only formatted on the way down."""

    def __init__(self, tensor: Callable[[Tensor], Any]) -> None:
        self._tensor = tensor

    def convert(self, value: Any, path: Any) -> Any:
        kind = type(value)
        if kind in _LEAVES:
            return value
        if isinstance(value, Tensor):
            return self._as_tensor(value, path)
        if isinstance(value, dict):
            return self._mapping(value, path)
        if kind is list:
            return [self.convert(entry, (path, i)) for i, entry in enumerate(value)]
        if kind is tuple:
            return tuple([self.convert(entry, (path, i)) for i, entry in enumerate(value)])
        return self._odd(value, path)

    def _as_tensor(self, value: Tensor, path: Any) -> Any:
        try:
            return self._tensor(value)
        except TypeError as error:
            raise TypeError(f"{_describe(path)} holds {error}") from error

    def _mapping(self, value: dict[Any, Any], path: Any) -> dict[Any, Any]:
        items = [
            (key if type(key) is str else self._key(key, path), self.convert(entry, (path, key)))
            for key, entry in value.items()
        ]
        if len(items) != len(dict(items)):
            raise ValueError(
                f"{_describe(path)} has keys that are equal in their plain form, such as an enum "
                f"and its value: {list(value)!r:.200}; rename one"
            )
        if type(value) is collections.Counter:
            return collections.Counter(dict(items))
        if type(value) is not collections.OrderedDict:
            return dict(items)
        ordered = collections.OrderedDict(items)
        metadata = getattr(value, "_metadata", None)
        if metadata is not None:
            plain = self.convert(metadata, (path, "_metadata"))
            ordered._metadata = plain  # type: ignore[attr-defined]
        return ordered

    def _key(self, key: Any, path: Any) -> Any:
        plain = self.convert(key, (path, key))
        if isinstance(key, Tensor) or isinstance(plain, dict | list | set):
            raise _no_plain_form(key, path, "the key of a dict")
        return plain

    def _odd(self, value: Any, path: Any) -> Any:
        if isinstance(value, enum.Enum):
            return self.convert(value.value, path)
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, np.generic):
            return self._scalar(value, path)
        if isinstance(value, torch.UntypedStorage | torch.storage.TypedStorage):
            return self._storage(value, path)
        for base in _BASES:
            if isinstance(value, base):
                return base(value)
        if isinstance(value, list | tuple | set | frozenset | collections.deque | range):
            return self._sequence(value, path)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
            return str(value)
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
        if isinstance(value, Mapping):
            return self._mapping(dict(value), path)
        state_dict = None if isinstance(value, type) else getattr(value, "state_dict", None)
        if callable(state_dict):
            return self.convert(state_dict(), path)
        raise _no_plain_form(value, path, "of type")

    def _scalar(self, value: np.generic, path: Any) -> Any:
        plain = value.item()
        if isinstance(plain, np.generic):  # of more precision than Python's numbers
            plain = complex(plain) if isinstance(plain, np.complexfloating) else float(plain)  # type: ignore[arg-type]
        return self.convert(plain, path)

    def _storage(self, value: Any, path: Any) -> Any:
        """The storage as a tensor of one dimension."""
        typed = isinstance(value, torch.storage.TypedStorage)
        tensor = torch.empty(0, dtype=value.dtype if typed else torch.uint8, device=value.device)
        return self._as_tensor(tensor.set_(value._untyped_storage if typed else value), path)

    def _sequence(self, value: Iterable[Any], path: Any) -> Any:
        entries = [self.convert(entry, (path, i)) for i, entry in enumerate(value)]
        if isinstance(value, tuple):
            return tuple(entries)
        if not isinstance(value, set | frozenset):
            return entries
        try:
            return set(entries)
        except TypeError as error:
            raise _no_plain_form(
                value, path, "with an entry that only fits in frozen sets,"
            ) from error

    def _array(self, value: np.ndarray[Any, Any], path: Any) -> Any:
        if value.dtype.kind in "biufc" and value.dtype.itemsize <= 16:
            native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
            if native.dtype not in (np.dtype(np.longdouble), np.dtype(np.clongdouble)):
                return self._tensor(torch.from_numpy(native.reshape(value.shape).copy()))
        if value.dtype.kind in "fc":
            return self.convert(value.astype("c16" if value.dtype.kind == "c" else "f8"), path)
        return self.convert(value.tolist(), path)


def _no_plain_form(value: Any, path: Any, role: str) -> TypeError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return TypeError(
        f"{_describe(path)} holds {_short(value)}, {role} {kind}, which a checkpoint that is safe "
        "to open cannot hold; give numbers, text, tensors or containers of them, or an object with "
        "state_dict()"
    )


def _short(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception as error:  # its own __repr__ is broken
        return f"something whose repr raises {type(error).__name__}"


def _describe(path: Any) -> str:
    keys: list[Any] = []
    while isinstance(path, tuple):
        path, key = path
        keys.append(key)
    return str(path) + "".join(f"[{key!r}]" for key in reversed(keys))
