"""Decorators: deprecations, and what a function needs to be installed."""

from __future__ import annotations

import functools
import importlib
import logging
import re
import shutil
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any

logger = logging.getLogger("fasttrain.utils")


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

        directive = (
            f".. deprecated:: {since}\n"
            f"    Deprecated and will be removed in version {removed_in}.\n"
            f"    Please {instructions}."
        )
        first, newline, rest = (function.__doc__ or "").partition("\n")
        body = textwrap.indent(first + newline + textwrap.dedent(rest), " " * 4)
        wrapper.__doc__ = f"{directive}\n\n\n{body}"
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
    """A decorator that refuses the call of a function while something it needs is missing.

    What is missing is printed, too: the callers of such functions often catch all errors.
    """
    needed = [prerequisites] if isinstance(prerequisites, str) else prerequisites

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            missing = [item for item in needed if not checker(item)]
            if missing:
                message = msg_tmpl.format(", ".join(missing), function.__name__)
                print(message)
                raise RuntimeError(message)
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
