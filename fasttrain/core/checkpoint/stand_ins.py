"""Inert stand-ins for the few foreign classes that a restricted load admits; they run none.

The classes with `__setstate__` refuse to be altered themselves: a pickle that tries to set
attributes on the class calls the method without an instance, which raises.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

_KINDS = "biufcSU"


class PickledDtype:
    """A numpy dtype of plain items: booleans, numbers or strings of fixed size."""

    __slots__ = ("dtype",)

    def __init__(self, spec: Any = "f8", align: Any = False, copy: Any = False) -> None:
        if not isinstance(spec, str) or "," in spec or "(" in spec:
            raise ValueError(f"expected the short name of a numpy dtype, got {spec!r}")
        self.dtype = np.dtype(spec)
        if self.dtype.kind not in _KINDS:
            raise ValueError(f"numpy arrays of dtype {spec!r} are not admitted, only plain items")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if state[2] is not None or state[3] is not None or state[4] is not None:
            raise ValueError("structured numpy dtypes are not admitted")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class PickledArray:
    """A numpy array; `resolve` turns it into the real one once its state is set."""

    __slots__ = ("array",)

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        items = np.frombuffer(_as_bytes(data), dtype=_dtype(dtype))
        order: Literal["C", "F"] = "F" if is_fortran else "C"
        native = items.dtype.newbyteorder("=")
        self.array = items.reshape(tuple(int(n) for n in shape), order=order).astype(native)


class PickledReconstruct:
    """Stands for numpy's array constructor: makes an empty `PickledArray`."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> Any:
        return PickledArray()

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a constructor has no state")


class PickledBuffer:
    """Stands for numpy's constructor from one buffer, which protocol 5 uses."""

    __slots__ = ()

    def __new__(cls, data: Any = b"", dtype: Any = None, shape: Any = (), order: Any = "C") -> Any:
        made = PickledArray()
        made.__setstate__((1, shape, dtype, order == "F", bytes(data)))
        return made

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a constructor has no state")


class PickledBytes:
    """Stands for `bytes`, by which old protocols write empty data."""

    __slots__ = ()

    def __new__(cls, data: Any = b"") -> Any:
        return _as_bytes(data)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a constructor has no state")


class PickledScalar:
    """Stands for numpy's scalar constructor: makes the Python number or string."""

    __slots__ = ()

    def __new__(cls, dtype: Any = None, data: Any = b"") -> Any:
        return np.frombuffer(_as_bytes(data), dtype=_dtype(dtype), count=1)[0].item()

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a constructor has no state")


class PickledObject:
    """An instance of an admitted foreign class: holds the pickled attributes, has no behaviour.

    A subclass gives the class's plain form in `plain`.
    """

    __slots__ = ("attributes",)

    def __init__(self, *_: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:
            state = {**(state[0] or {}), **(state[1] or {})}
        if not isinstance(state, dict):
            raise ValueError(f"expected the attributes of an object, got {type(state).__name__}")
        self.attributes = dict(state)

    def plain(self) -> Any:
        """The plain form of the object; its attributes are resolved already."""
        return dict(self.attributes)


class PickledAttribute:
    """Stands for `getattr` of an admitted class's method: only the name is kept."""

    __slots__ = ("name",)

    def __init__(self, owner: Any = None, name: Any = "") -> None:
        if not (isinstance(owner, type) and issubclass(owner, PickledObject)):
            raise ValueError(f"attribute {name!r} of {owner!r} is not admitted")
        self.name = str(name)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("an attribute has no state")


def admitted_names(classes: Mapping[str, type[PickledObject]]) -> dict[str, Callable[..., Any]]:
    """Full dotted name -> what a restricted load puts in its place, beyond torch's own list."""
    names: dict[str, Callable[..., Any]] = {
        "numpy.dtype": PickledDtype,
        "numpy.ndarray": PickledArray,
        "collections.OrderedDict": collections.OrderedDict,
        "collections.defaultdict": collections.defaultdict,
        "builtins.bytes": PickledBytes,
        "builtins.list": list,
        "builtins.dict": dict,
        "builtins.int": int,
        "builtins.float": float,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = PickledReconstruct
        names[f"{core}.multiarray.scalar"] = PickledScalar
        names[f"{core}.numeric._frombuffer"] = PickledBuffer
    if classes:
        names["builtins.getattr"] = PickledAttribute
        names.update(classes)
    return names


def resolve(value: Any) -> Any:
    """Replace every stand-in inside nested containers by the plain value that it stands for."""
    return _resolve(value, {})


def _resolve(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, PickledArray):
        return value.array
    if isinstance(value, PickledDtype):
        return value.dtype
    if isinstance(value, PickledAttribute):
        return value.name
    if isinstance(value, PickledObject):
        if id(value) not in seen:
            value.attributes = _resolve(value.attributes, seen)
            seen[id(value)] = value.plain()
        return seen[id(value)]
    if isinstance(value, dict | list) and id(value) not in seen:
        seen[id(value)] = value
        for key, entry in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = _resolve(entry, seen)
    elif type(value) is tuple:
        entries = [_resolve(entry, seen) for entry in value]
        if any(new is not old for new, old in zip(entries, value, strict=True)):
            return tuple(entries)
    return value


def _as_bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    raise ValueError(f"expected the raw bytes of a numpy value, got {type(data).__name__}")


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, PickledDtype):
        raise ValueError(f"expected a numpy dtype, got {type(value).__name__}")
    return value.dtype
