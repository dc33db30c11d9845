"""Checks and conversions of types, deprecations, imports by name."""

from __future__ import annotations

import collections.abc
import functools
import importlib
import itertools
import logging
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

logger = logging.getLogger("fasttrain.utils")


def is_str(x: Any) -> bool:
    """Whether `x` is a string."""
    return isinstance(x, str)


def is_seq_of(seq: Any, expected_type: type | tuple[type, ...], seq_type: Any = None) -> bool:
    """Whether `seq` is a sequence, of class `seq_type` if given, of items of the expected type."""
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


def apply_to(data: Any, expr: Callable[[Any], bool], apply_func: Callable[[Any], Any]) -> Any:
    """Apply a function to the items of nested dicts, lists and tuples that `expr` holds for."""
    if isinstance(data, dict):
        return {key: apply_to(value, expr, apply_func) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(apply_to(item, expr, apply_func) for item in data))
    if isinstance(data, list | tuple):
        return type(data)(apply_to(item, expr, apply_func) for item in data)
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


def import_modules_from_strings(
    imports: str | list[str] | None, allow_failed_imports: bool = False
) -> ModuleType | list[ModuleType | None] | None:
    """Import modules by name.

    Args:
        imports: a name or a list of names.
        allow_failed_imports: warn about a module that cannot be imported and give None for it.
    Returns:
        a module for a name, a list for a list, None for nothing.
    """
    if not imports:
        return None
    if isinstance(imports, str):
        return _import_module(imports, allow_failed_imports)
    if not isinstance(imports, list):
        raise TypeError(f"custom_imports must be a list but got type {type(imports)}")
    for name in imports:
        if not isinstance(name, str):
            raise TypeError(f"{name} is of type {type(name)} and cannot be imported.")
    return [_import_module(name, allow_failed_imports) for name in imports]


def _import_module(name: str, allow_failure: bool) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        if not allow_failure:
            raise ImportError(f"Failed to import {name}: {e}") from e
        warnings.warn(f"{name} failed to import and is ignored: {e}", UserWarning, stacklevel=3)
        return None


def get_object_from_string(obj_name: str) -> Any:
    """Import an object by its dotted path, such as `"torch.optim.SGD"`.

    Returns:
        the object, or None when there is no such path; an error within a module that does exist
        is raised.
    """
    path, *attributes = obj_name.split(".")
    if not all([path, *attributes]):
        return None
    found = _import_if_there(path)
    for attribute in attributes:
        path = f"{path}.{attribute}"
        if hasattr(found, attribute):
            found = getattr(found, attribute)
        elif isinstance(found, ModuleType):
            found = _import_if_there(path)
        else:
            return None
    return found


def _import_if_there(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is not None and f"{name}.".startswith(f"{e.name}."):
            return None
        raise


def deprecated_api_warning(
    name_dict: dict[str, str], cls_name: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that renames keyword arguments of a function, with a warning.

    Args:
        name_dict: old name -> new name.
        cls_name: the class that the function belongs to, for the text.
    """

    def decorate(old_func: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{cls_name}.{old_func.__name__}" if cls_name else old_func.__name__

        @functools.wraps(old_func)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            for old, new in name_dict.items():
                if old not in kwargs:
                    continue
                assert new not in kwargs, (
                    f"The expected behavior is to replace the deprecated key `{old}` to new key "
                    f"`{new}`, but got them in the arguments at the same time, which is confusing. "
                    f"`{old} will be deprecated in the future, please use `{new}` instead."
                )
                warnings.warn(
                    f'"{old}" is deprecated in `{name}`, please use "{new}" instead',
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return old_func(*args, **kwargs)

        return renamed

    return decorate


def deprecated_function(
    since: str, removed_in: str, instructions: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that logs, once per function, that it will go, and says so in its docstring.

    Args:
        since: the version in which the function was deprecated.
        removed_in: the version in which it will be gone.
        instructions: what to do instead.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        notice = f"will be removed in version {removed_in}. Please {instructions}."
        told = False

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal told
            if not told:
                told = True
                name = f"{function.__module__}.{function.__name__}"
                logger.warning("'%s' is deprecated in version %s and %s", name, since, notice)
            return function(*args, **kwargs)

        directive = f".. deprecated:: {since}\n    Deprecated and {notice}"
        wrapper.__doc__ = f"{directive}\n\n    {function.__doc__ or ''}"
        return wrapper

    return decorate


_MISSING_TEMPLATE = (
    'Prerequisites "{}" are required in method "{}" but not found, please install them first.'
)


def check_prerequisites(
    prerequisites: str | Sequence[str],
    checker: Callable[[str], bool],
    msg_tmpl: str = _MISSING_TEMPLATE,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that refuses the call of a function while something it needs is missing."""
    needed = [prerequisites] if isinstance(prerequisites, str) else prerequisites

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            missing = [item for item in needed if not checker(item)]
            if missing:
                raise RuntimeError(msg_tmpl.format(", ".join(missing), function.__name__))
            return function(*args, **kwargs)

        return checked

    return decorate


def _has_package(name: str) -> bool:
    try:
        importlib.import_module(re.split(r"[<>=!]", name)[0])
    except ImportError:
        return False
    return True


def _has_executable(name: str) -> bool:
    return shutil.which(name) is not None


def requires_package(
    prerequisites: str | Sequence[str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for functions that need importable packages."""
    return check_prerequisites(prerequisites, checker=_has_package)


def requires_executable(
    prerequisites: str | Sequence[str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for functions that need programs on the search path."""
    return check_prerequisites(prerequisites, checker=_has_executable)


def call_command(cmd: list[str]) -> None:
    """Run a program; an exit status other than zero raises `subprocess.CalledProcessError`."""
    subprocess.check_call(cmd)
