"""Checks and conversions of types and containers."""

from __future__ import annotations

import collections.abc
import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from .decorators import (
    check_prerequisites,
    deprecated_api_warning,
    deprecated_function,
    requires_executable,
    requires_package,
)
from .imports import get_object_from_string, import_modules_from_strings

__all__ = [
    "apply_to", "check_prerequisites", "concat_list", "deprecated_api_warning",
    "deprecated_function", "get_object_from_string", "has_method", "import_modules_from_strings",
    "is_list_of", "is_method_overridden", "is_seq_of", "is_str", "is_tuple_of", "iter_cast",
    "list_cast", "requires_executable", "requires_package", "slice_list", "to_1tuple",
    "to_2tuple", "to_3tuple", "to_4tuple", "to_ntuple", "tuple_cast",
]  # fmt: skip


def is_str(x: Any) -> bool:
    """Whether `x` is a string."""
    return isinstance(x, str)


def is_seq_of(seq: Any, expected_type: type | tuple[type, ...], seq_type: Any = None) -> bool:
    """Whether `seq` is a sequence, of class `seq_type` if given, of items of the expected type."""
    is_kind = isinstance(seq_type, type | tuple)
    assert seq_type is None or is_kind, f"seq_type must be a class, got {seq_type!r}"
    if not isinstance(seq, seq_type or collections.abc.Sequence):
        return False
    return all(isinstance(item, expected_type) for item in seq)


def is_list_of(seq: Any, expected_type: type | tuple[type, ...]) -> bool:
    """Whether `seq` is a list of items of the expected type."""
    return is_seq_of(seq, expected_type, seq_type=list)


def is_tuple_of(seq: Any, expected_type: type | tuple[type, ...]) -> bool:
    """Whether `seq` is a tuple of items of the expected type."""
    return is_seq_of(seq, expected_type, seq_type=tuple)


def iter_cast(
    inputs: Iterable[Any], dst_type: Callable[[Any], Any], return_type: Any = None
) -> Any:
    """Convert every item; the result is an iterator, or a `return_type` of the items."""
    if not isinstance(inputs, collections.abc.Iterable):
        raise TypeError("inputs must be an iterable object")
    if not isinstance(dst_type, type):
        raise TypeError('"dst_type" must be a valid type')
    converted = map(dst_type, inputs)
    return converted if return_type is None else return_type(converted)


def list_cast(inputs: Iterable[Any], dst_type: type) -> list[Any]:
    """Convert every item, into a list."""
    return iter_cast(inputs, dst_type, return_type=list)


def tuple_cast(inputs: Iterable[Any], dst_type: type) -> tuple[Any, ...]:
    """Convert every item, into a tuple."""
    return iter_cast(inputs, dst_type, return_type=tuple)


def slice_list(in_list: list[Any], lens: int | list[int]) -> list[list[Any]]:
    """Cut a list into parts of equal length, or of the given lengths."""
    if isinstance(lens, int):
        assert lens > 0 and len(in_list) % lens == 0, (
            f"a list of {len(in_list)} cannot be cut into parts of {lens}"
        )
        lens = [lens] * (len(in_list) // lens)
    if not isinstance(lens, list):
        raise TypeError('"indices" must be an integer or a list of integers')
    if sum(lens) != len(in_list):
        raise ValueError(
            f"sum of lens and list length does not match: {sum(lens)} != {len(in_list)}"
        )
    ends = list(itertools.accumulate(lens))
    return [in_list[end - length : end] for end, length in zip(ends, lens, strict=True)]


def concat_list(in_list: Iterable[Iterable[Any]]) -> list[Any]:
    """Put the items of several lists into one."""
    return list(itertools.chain(*in_list))


def to_ntuple(n: int) -> Callable[[Any], Any]:
    """A function that repeats a value `n` times, and leaves a sequence of values as it is."""

    def parse(x: Any) -> Any:
        return x if isinstance(x, collections.abc.Iterable) else (x,) * n

    return parse


to_1tuple = to_ntuple(1)
to_2tuple = to_ntuple(2)
to_3tuple = to_ntuple(3)
to_4tuple = to_ntuple(4)


def map_sequence(visit: Callable[[Any], Any], value: Any) -> Any:
    """A list or tuple of the same class as `value` with `visit` applied to every item."""
    items = [visit(item) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def apply_to(data: Any, expr: Callable[[Any], bool], apply_func: Callable[[Any], Any]) -> Any:
    """Apply a function to the items of nested dicts, lists and tuples that `expr` holds for."""
    if isinstance(data, dict):
        applied = copy.copy(data)  # keeps the class
        for key, value in data.items():
            applied[key] = apply_to(value, expr, apply_func)
        return applied
    if isinstance(data, list | tuple):
        return map_sequence(lambda item: apply_to(item, expr, apply_func), data)
    return apply_func(data) if expr(data) else data


def has_method(obj: object, method: str) -> bool:
    """Whether an object has a method of that name."""
    return callable(getattr(obj, method, None))


def is_method_overridden(method: str, base_class: type, derived_class: type | Any) -> bool:
    """Whether a class, or an object's class, has another method than the base class has."""
    assert isinstance(base_class, type), (
        "base_class doesn't accept instance, Please pass class instead."
    )
    derived = derived_class if isinstance(derived_class, type) else type(derived_class)
    return getattr(derived, method) != getattr(base_class, method)
