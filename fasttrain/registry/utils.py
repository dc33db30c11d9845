"""Looking over what is registered, and setting the default scope."""

from __future__ import annotations

import datetime
import json
import logging
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
    """Make `scope` the default scope; logs a warning when that needs force.

    Force is needed when the scope was set before and another one has been set since.
    """
    if not DefaultScope.check_instance_created(scope):
        DefaultScope.get_instance(scope, scope_name=scope)
        return
    current = DefaultScope.get_current_instance().scope_name
    if current != scope:
        logger.warning(
            'The current default scope "%s" is not "%s", `init_default_scope` will force set the '
            'current default scope to "%s".',
            current,
            scope,
            scope,
        )
        DefaultScope.get_instance(f"{scope}-{datetime.datetime.now()}", scope_name=scope)
