"""Running a lazy config: imports give stand-ins, `with read_base():` reads other configs."""

from __future__ import annotations

import ast
import os.path as osp
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from fasttrain.utils.package_utils import get_installed_path

from . import python_text
from .config_dict import UnreadConfigDict, to_config_dict
from .import_transformer import ImportTransformer, _gather_abs_import_lazyobj
from .language import BASE_KEY, ConfigParsingError
from .lazy import LazyObject
from .places import find_in_package, read_text

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


def load_lazy(
    filename: str, chain: tuple[str, ...] = (), text: str | None = None
) -> tuple[dict[str, Any], set[str]]:
    """Run a lazy config file.

    Args:
        filename: path of the file.
        chain: the files that read this one as a base, outermost first.
        text: to be taken as the text of the file; None reads it.
    Returns:
        all names that the file defines, and which of them are imports.
    Raises:
        ConfigParsingError: the file breaks a rule of lazy configs.
    """
    path = osp.abspath(filename)
    if path in chain:
        raise ConfigParsingError(f"the configs read each other: {' -> '.join([*chain, path])}")
    tree = python_text.parse(read_text(filename) if text is None else text, filename)
    if any(isinstance(node, ast.Name) and node.id == BASE_KEY for node in ast.walk(tree)):
        raise ConfigParsingError(_TEXT_BASE.format(filename))

    bases: dict[str, dict[str, Any]] = {}
    imported: set[str] = set()
    for written in _written_bases(tree, filename):
        names, imported_there = load_lazy(_base_path(written, filename), (*chain, path))
        bases[written] = to_config_dict(names, kind=UnreadConfigDict)
        imported |= imported_there

    namespace: dict[str, Any] = {"LazyObject": LazyObject, "read_base": read_base}
    helpers = dict(namespace)
    transformer = ImportTransformer(namespace, bases, filename)
    tree, gathered = _gather_abs_import_lazyobj(transformer.visit(tree), filename)
    python_text.run(tree, filename, namespace)
    values = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("__") and not (name in helpers and value is helpers[name])
    }
    return values, (imported | transformer.imported_obj | gathered) & values.keys()


def _written_bases(tree: ast.Module, filename: str) -> list[str]:
    """The modules, as written, that the file imports from within `with read_base():`."""
    written = []
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            python_text.check_read_base(node, filename)
            imports = [part for part in node.body if isinstance(part, ast.ImportFrom)]
            written += ["." * part.level + (part.module or "") for part in imports]
    return list(dict.fromkeys(written))


def _base_path(written: str, filename: str) -> str:
    """The path of a base config.

    Args:
        written: `"._base_.schedule"`, relative to the config's folder, or
            `"package.configs.schedule"`.
        filename: the config that names it.
    """
    name = written.lstrip(".")
    level = len(written) - len(name)
    if level:
        folder = osp.join(osp.dirname(filename), *[".."] * (level - 1))
        path = osp.normpath(osp.join(folder, *name.split(".")) + ".py")
    else:
        package, _, rest = name.partition(".")
        path = osp.join(get_installed_path(package), *rest.split(".")) + ".py"
        if not osp.isfile(path):
            below_configs = rest.removeprefix("configs.").replace(".", "/")
            path = find_in_package(package, f"{below_configs}.py")
    if not osp.isfile(path):
        raise ConfigParsingError(
            f"{path} not found! It means that incorrect module is defined in "
            f"`with read_base(): from {written} import ...` of {filename}, please make sure the "
            "base config module is valid and is consistent with the prior import logic"
        )
    return path
