"""Parsing and running the Python text of a config file."""

from __future__ import annotations

import ast
import builtins
import re
import sys
import types
from collections.abc import Container, Iterable
from typing import Any

from .language import BASE_KEY, CONFIG_MODULES, CONFIG_NAMES, ConfigParsingError


def parse(text: str, filename: str) -> ast.Module:
    """Parse the text.

    Raises:
        SyntaxError: its message names file and line.
    """
    try:
        return ast.parse(text, filename=filename)
    except SyntaxError as e:
        message = f"There are syntax errors in config file {filename}, line {e.lineno}: {e.msg}"
        details = (filename, e.lineno, e.offset, e.text, e.end_lineno, e.end_offset)
        raise SyntaxError(message, details) from e


def run(tree: ast.Module, filename: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run a parsed config in `namespace`, under its own file name, and return the namespace."""
    namespace.setdefault("__builtins__", builtins)
    namespace.update(__name__="__config__", __file__=filename)
    exec(compile(tree, filename, "exec"), namespace)
    return namespace


def config_values(
    namespace: dict[str, Any], imported: Container[str] = frozenset()
) -> dict[str, Any]:
    """What of a namespace is config.

    Special names, modules, functions, and the classes and callables among the `imported` names
    are not.
    """
    return {
        key: value
        for key, value in namespace.items()
        if not (isinstance(key, str) and key.startswith("__"))
        and not isinstance(value, types.ModuleType | types.FunctionType)
        and not (key in imported and callable(value))
    }


def imported_names(statements: Iterable[ast.AST]) -> set[str]:
    """The names that the import statements among `statements` bind."""
    return {
        alias.asname or alias.name.split(".")[0]
        for statement in statements
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for alias in statement.names
    }


def take_bases(tree: ast.Module, filename: str) -> list[str]:
    """Remove `_base_ = ...` from a parsed config and return the names of its bases."""
    bases: list[str] = []
    for node in list(tree.body):
        if isinstance(node, ast.Assign) and _assigns(node, BASE_KEY):
            tree.body.remove(node)
            code = compile(ast.Expression(node.value), filename, "eval")
            try:
                value = eval(code, {})
            except NameError as e:
                raise ConfigParsingError(
                    f"{filename}, line {node.lineno}: `{BASE_KEY}` is read before the rest of the "
                    f"config and cannot use its variables ({e})"
                ) from e
            bases = checked_bases(value, filename)
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Assign) and _assigns(inner, BASE_KEY):
            raise ConfigParsingError(
                f"{filename}, line {inner.lineno}: `{BASE_KEY}` must be assigned at the top level"
            )
    return bases


def checked_bases(value: Any, filename: str) -> list[str]:
    """The list of base names of a `_base_` value: a string, or a list or tuple of strings."""
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise ConfigParsingError(
            f"{filename}: `{BASE_KEY}` must be a path or a list of paths, but got {value!r}"
        )
    return list(names)


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def is_standard_library(module: str) -> bool:
    """Whether a module comes with Python; a config may use such modules right away."""
    return module.split(".")[0] in sys.stdlib_module_names


def uses_lazy_imports(text: str, filename: str) -> bool:
    """Whether a config is of the lazy kind.

    It is when it has `with read_base():`, or when it imports something that does not come with
    Python and names no bases by `_base_`.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError:  # references such as {{$N:1}} are no Python: anything may stand for them
        tree = parse(re.sub(r"\{\{.*?\}\}", "0", text), filename)
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            check_read_base(node, filename)
            return True
    if any(isinstance(node, ast.Assign) and _assigns(node, BASE_KEY) for node in tree.body):
        return False
    return any(_imports_lazily(node) for node in ast.walk(tree))


def _imports_lazily(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return not all(is_standard_library(alias.name) for alias in node.names)
    if not isinstance(node, ast.ImportFrom):
        return False
    if node.module in CONFIG_MODULES and {alias.name for alias in node.names} <= CONFIG_NAMES:
        return False
    return node.level > 0 or not is_standard_library(node.module or "")


def check_read_base(node: ast.With, filename: str) -> None:
    """Let pass `with read_base():` around `from ... import ...` statements, and nothing else.

    Raises:
        ConfigParsingError: with file and line.
    """
    call = node.items[0].context_expr
    if not (
        len(node.items) == 1
        and isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "read_base"
    ):
        raise ConfigParsingError(
            f"{filename}, line {node.lineno}: Only `read_base` context manager can be used in the "
            "config"
        )
    for statement in node.body:
        if not isinstance(statement, ast.ImportFrom | ast.Pass):
            raise ConfigParsingError(
                f"{filename}, line {statement.lineno}: Illegal syntax in config file! Only "
                "`from ... import ...` could be implemented in `with read_base()`"
            )
