"""Finding what a name stands for, and what to say when nothing is found."""

from __future__ import annotations

import difflib
import importlib
import logging
from typing import TYPE_CHECKING

from fasttrain.utils.package_utils import PROJECTS

if TYPE_CHECKING:
    from .registry import Registry

logger = logging.getLogger("fasttrain.registry")


def import_scope(scope: str) -> bool:
    """Import `<scope>.registry`, which attaches a package's registries to the roots."""
    try:
        importlib.import_module(f"{scope}.registry")
    except ImportError as e:
        missing = e.name if isinstance(e, ModuleNotFoundError) else None
        if missing == scope and scope in PROJECTS:
            logger.warning(
                "%s is not installed and its modules will not be registered. If you want to use "
                "modules defined in %s, please install it by `pip install %s`.",
                scope,
                scope,
                PROJECTS[scope],
            )
        elif missing not in (scope, f"{scope}.registry"):
            logger.warning("cannot import `%s.registry`: %s", scope, e)
        return False
    return True


def unknown_type_message(obj_type: str, registry: Registry) -> str:
    """What a user needs to know when `obj_type` is not found in `registry`."""
    where = f"{registry.scope}::{registry.name}"
    message = (
        f"{obj_type} is not in the {where} registry. Please check whether the value of "
        f"`{obj_type}` is correct or it was registered as expected."
    )
    names = _reachable_names(registry)
    near = difflib.get_close_matches(obj_type.rpartition(".")[2].lower(), names, n=3)
    if near:
        message += f" The nearest registered names: {', '.join(names[name] for name in near)}."
    return message + (
        " A module of your own registers when it is imported: list it in `custom_imports` of the"
        " config, or import it before building."
    )


def _reachable_names(registry: Registry) -> dict[str, str]:
    """Name in lower case -> the way to write it, of a registry, its parents and its tree."""
    names: dict[str, str] = {}
    parent: Registry | None = registry
    while parent is not None:
        names = {name.lower(): name for name in parent.module_dict} | names
        parent = parent.parent
    for scope, child in registry.root.children.items():
        names = {name.lower(): f"{scope}.{name}" for name in child.module_dict} | names
    return names
