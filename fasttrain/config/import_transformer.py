"""Rewriting the imports of a lazy config's syntax tree into assignments."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from .language import CONFIG_MODULES, ConfigParsingError
from .python_text import is_standard_library

_BASES = "__bases__"  # where the rewritten file finds the values of its bases


class ImportTransformer(ast.NodeTransformer):
    """Makes imports bind stand-ins, and imports from base configs the values of those.

    Imports of what comes with Python stay, and `import a.b`, which binds `a`, is left to
    `_gather_abs_import_lazyobj`. The rewritten tree needs `LazyObject` in its namespace.

    Args:
        global_dict: the namespace that the tree will run in; gets the values of the bases.
        base_dict: a base as the file writes it, such as `"._base_.schedule"` -> its values.
        filename: for the stand-ins' locations.
    """

    def __init__(
        self,
        global_dict: dict[str, Any],
        base_dict: Mapping[str, dict[str, Any]] | None = None,
        filename: str | None = None,
    ) -> None:
        self.base_dict = base_dict or {}
        self.filename = filename
        self.imported_obj: set[str] = set()
        global_dict[_BASES] = self.base_dict

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        return [self._rewritten_import(alias, node) for alias in node.names]

    def _rewritten_import(self, alias: ast.alias, node: ast.Import) -> ast.stmt:
        self.imported_obj.add(alias.asname or alias.name.split(".")[0])
        if is_standard_library(alias.name) or alias.asname is None:
            return ast.copy_location(ast.Import([alias]), node)
        return _bind(alias.asname, (alias.name,), node, self.filename)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt]:
        module = "." * node.level + (node.module or "")
        if module in self.base_dict:
            return self._base_values(module, node)
        if is_standard_library(module):
            self.imported_obj.update(alias.asname or alias.name for alias in node.names)
            return [node]
        if node.level or node.names[0].name == "*":
            form = "a relative import" if node.level else "`from xxx import *`"
            raise ConfigParsingError(
                f"{self.filename}, line {node.lineno}: Illegal syntax in config! {form} is not "
                "allowed to appear outside the `with read_base():` statement"
            )
        statements: list[ast.stmt] = []
        for alias in node.names:
            if alias.name == "read_base" and module in CONFIG_MODULES:
                continue
            name = alias.asname or alias.name
            self.imported_obj.add(name)
            statements.append(_bind(name, (module, alias.name), node, self.filename))
        return statements or [ast.copy_location(ast.Pass(), node)]

    def _base_values(self, module: str, node: ast.ImportFrom) -> list[ast.stmt]:
        values = self.base_dict[module]
        names = {alias.name: alias.asname or alias.name for alias in node.names}
        if "*" in names:
            names = {name: name for name in values}
        lines = []
        for name, target in names.items():
            if name not in values:
                raise ConfigParsingError(
                    f"{self.filename}, line {node.lineno}: the base config {module} has no "
                    f"{name!r}; it has {sorted(values)}"
                )
            lines.append(f"{target} = {_BASES}[{module!r}][{name!r}]")
        return _statements("\n".join(lines) or "pass", node)


def _gather_abs_import_lazyobj(
    tree: ast.Module, filename: str | None = None
) -> tuple[ast.Module, set[str]]:
    """Take `import a.b` statements out of a tree and bind each such `a` once, at its start.

    Returns:
        the tree, changed in place, and the names bound.
    """
    gatherer = _Gatherer()
    gatherer.visit(tree)
    start = 0
    while start < len(tree.body) and _must_come_first(tree.body[start]):
        start += 1
    tree.body[start:start] = [
        _bind(package, (modules,), node, filename)
        for package, (modules, node) in gatherer.packages.items()
    ]
    return tree, set(gatherer.packages)


class _Gatherer(ast.NodeTransformer):
    """Collects package -> the modules of it that a tree imports, and the first such statement."""

    def __init__(self) -> None:
        self.packages: dict[str, tuple[list[str], ast.stmt]] = {}

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        kept = []
        for alias in node.names:
            if alias.asname is not None or is_standard_library(alias.name):
                kept.append(alias)
                continue
            modules, _ = self.packages.setdefault(alias.name.split(".")[0], ([], node))
            modules.append(alias.name)
        return ast.copy_location(ast.Import(kept) if kept else ast.Pass(), node)


def _must_come_first(statement: ast.stmt) -> bool:
    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_docstring or (
        isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
    )


def _bind(name: str, arguments: tuple[Any, ...], node: ast.stmt, filename: str | None) -> ast.stmt:
    """The statement that binds `name` to a stand-in, in the place of `node`."""
    written = "".join(f"{argument!r}, " for argument in arguments)
    location = f"{filename}, line {node.lineno}"
    return _statements(f"{name} = LazyObject({written}location={location!r})", node)[0]


def _statements(code: str, node: ast.stmt) -> list[ast.stmt]:
    """Parsed code whose every part is said to be at the place of `node`."""
    statements = ast.parse(code).body
    for statement in statements:
        for part in ast.walk(statement):
            ast.copy_location(part, node)
    return statements
