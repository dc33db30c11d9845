"""Running a lazy config: imports give stand-ins, `with read_base():` reads other configs."""

from __future__ import annotations

import ast
import builtins
import os.path as osp
import sys
import types
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from . import python_text
from .config_dict import UnreadConfigDict, to_config_dict
from .lazy import LazyObject
from .utils import BASE_KEY, ConfigParsingError, find_in_package, package_folder, read_text

_TEXT_BASE = (
    "The configuration file type in the inheritance chain must match the current configuration "
    'file type, either "lazy_import" or non-"lazy_import". {} has `_base_ = ...`: use `with '
    "read_base(): from ... import *` to name its bases instead."
)


@contextmanager
def read_base() -> Generator[None, None, None]:
    """Mark the imports of a lazy config that read base configs.

    Within a config file they are read as configs; elsewhere this does nothing.
    """
    yield


def load_lazy(filename: str, chain: tuple[str, ...] = ()) -> tuple[dict[str, Any], set[str]]:
    """Run a lazy config file.

    Args:
        filename: path of the file.
        chain: the files that read this one as a base, outermost first.
    Returns:
        all names that the file defines, and which of them are imports.
    Raises:
        ConfigParsingError: the file breaks a rule of lazy configs.
    """
    path = osp.abspath(filename)
    if path in chain:
        raise ConfigParsingError(f"the configs read each other: {' -> '.join([*chain, path])}")
    tree = python_text.parse(read_text(filename), filename)
    importer = _Importer(filename, (*chain, path))
    imported = _check(tree, filename)
    namespace = python_text.run(
        tree,
        filename,
        {
            "__builtins__": {**vars(builtins), "__import__": importer.import_module},
            "read_base": importer.read_base,
        },
    )
    names = {key: value for key, value in namespace.items() if not key.startswith("__")}
    names.pop("read_base", None)
    return names, (imported | importer.imported_in_bases) & names.keys()


def _check(tree: ast.Module, filename: str) -> set[str]:
    """Check the rules that hold before a config runs, and return the names that it imports."""
    imports: list[ast.AST] = []
    of_bases: set[ast.AST] = set()
    if any(isinstance(node, ast.Name) and node.id == BASE_KEY for node in ast.walk(tree)):
        raise ConfigParsingError(_TEXT_BASE.format(filename))
    for node in ast.walk(tree):  # breadth first: a `with` comes before what is in it
        if isinstance(node, ast.With):
            python_text.check_read_base(node, filename)
            of_bases.update(node.body)
        if node in of_bases or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.ImportFrom) and (node.level or node.names[0].name == "*"):
            raise ConfigParsingError(
                f"{filename}, line {node.lineno}: Illegal syntax in config! `from xxx import *` "
                "and relative imports are not allowed outside `with read_base():`"
            )
        imports.append(node)
    return python_text.imported_names(imports)


class _Importer:
    """What `import` does within one config file."""

    def __init__(self, filename: str, chain: tuple[str, ...]) -> None:
        self.filename = filename
        self.chain = chain
        self.imported_in_bases: set[str] = set()
        self._in_bases = False

    @contextmanager
    def read_base(self) -> Generator[None, None, None]:
        self._in_bases = True
        try:
            yield
        finally:
            self._in_bases = False

    def import_module(
        self,
        name: str,
        namespace: Mapping[str, Any] | None = None,
        local_names: Mapping[str, Any] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> Any:
        """Stands in for `__import__`, which every import statement calls."""
        if self._in_bases:
            return self._base(name, level)
        if python_text.is_standard_library(name):
            return builtins.__import__(name, namespace, local_names, fromlist or (), level)
        location = f"{self.filename}, line {sys._getframe(1).f_lineno}"
        if not fromlist:  # `import a.b` binds `a`
            return LazyObject(name.split(".")[0], location=location)
        module = types.SimpleNamespace()
        for imported in fromlist:
            setattr(module, imported, LazyObject(name, imported, location))
        if name in python_text.CONFIG_MODULES and "read_base" in fromlist:
            module.read_base = self.read_base
        return module

    def _base(self, name: str, level: int) -> types.ModuleType:
        """Read a base config and give it as a module, from which names are then imported."""
        names, imported = load_lazy(self._base_path(name, level), self.chain)
        self.imported_in_bases |= imported
        module = types.ModuleType(name)
        values = to_config_dict(names, kind=UnreadConfigDict)
        vars(module).update(dict.items(values), __all__=list(names))
        return module

    def _base_path(self, name: str, level: int) -> str:
        written = "." * level + name
        if level:
            folder = osp.join(osp.dirname(self.filename), *[".."] * (level - 1))
            path = osp.normpath(osp.join(folder, *name.split(".")) + ".py")
        else:
            package, _, rest = name.partition(".")
            path = osp.join(package_folder(package), *rest.split(".")) + ".py"
            if not osp.isfile(path):
                below_configs = rest.removeprefix("configs.").replace(".", "/")
                path = find_in_package(package, f"{below_configs}.py")
        if not osp.isfile(path):
            raise ConfigParsingError(
                f"{path} not found! It means that incorrect module is defined in "
                f"`with read_base(): from {written} import ...` of {self.filename}, please make "
                "sure the base config module is valid and is consistent with the prior import "
                "logic"
            )
        return path
