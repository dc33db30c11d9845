"""Looking over what is registered, and setting the default scope."""

from __future__ import annotations

import datetime
import json
import logging
import warnings
from pathlib import Path
from typing import Any

from . import root
from .default_scope import DefaultScope
from .registry import Registry

logger = logging.getLogger("fasttrain.registry")


def traverse_registry_tree(registry: Registry, verbose: bool = True) -> list[dict[str, Any]]:
    """Count the modules of a whole tree, from its root down.

    Returns:
        one dict per registry: `num_modules`, `scope`, and folder -> names registered from there.
    """
    found: list[dict[str, Any]] = []

    def visit(node: Registry) -> None:
        node.import_from_location()
        info: dict[str, Any] = {"num_modules": len(node.module_dict), "scope": node.scope}
        for name, module in node.module_dict.items():
            folder = "/".join(str(getattr(module, "__module__", "")).split(".")[:-1])
            info.setdefault(folder, []).append(name)
        found.append(info)
        if verbose:
            logger.info("Find %d modules in %s's '%s' registry", len(node), node.scope, node.name)
        for child in node.children.values():
            visit(child)

    visit(registry.root)
    return found


def count_registered_modules(save_path: str | None = None, verbose: bool = True) -> dict[str, Any]:
    """Count the modules of all root registries and what hangs below them.

    Args:
        save_path: a folder that gets the result as `modules_statistic_results.json`.
        verbose: log each registry's count.
    """
    registries = {
        name: traverse_registry_tree(value, verbose)
        for name, value in sorted(vars(root).items())
        if isinstance(value, Registry)
    }
    scan_date = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    result = {"scan_date": scan_date, "registries": registries}
    if verbose:
        logger.info("Finish registry analysis, got: %s", result)
    if save_path is not None:
        path = Path(save_path) / "modules_statistic_results.json"
        path.write_text(json.dumps(result, indent=2), encoding="utf-8")
        logger.info("Result has been saved to %s", path)
    return result


def init_default_scope(scope: str) -> None:
    """Make `scope` the default scope; warns when another one was in force."""
    current = DefaultScope.get_current_instance()
    if current is not None and current.scope_name != scope:
        warnings.warn(
            f'The current default scope "{current.scope_name}" is not "{scope}", '
            "`init_default_scope` will force set the current default scope to "
            f'"{scope}".',
            stacklevel=2,
        )
    if current is None or current.scope_name != scope:
        name = scope
        if DefaultScope.check_instance_created(name):
            name = f"{scope}-{datetime.datetime.now().isoformat()}"
        DefaultScope.get_instance(name, scope_name=scope)
