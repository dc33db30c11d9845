"""Importing modules and objects by name."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any


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
