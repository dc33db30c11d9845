"""Single steps of loading a config file, as static methods that work on files."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from . import python_text, serialize, variables
from .config_dict import ConfigDict, UnreadConfigDict, to_config_dict
from .language import BASE_KEY, ConfigParsingError
from .lazy_file import load_lazy
from .merging import merge_a_into_b
from .places import read_text, resolve_base
from .text_file import TextLoader

T = TypeVar("T")


class FileSteps:
    """The steps that `Config.fromfile` consists of, under the names that tools call them by."""

    _merge_a_into_b = staticmethod(merge_a_into_b)
    _get_cfg_path = staticmethod(resolve_base)
    _substitute_base_vars = staticmethod(variables.fill_base_references)

    @staticmethod
    def _file2dict(
        filename: str,
        use_predefined_variables: bool = True,
        use_environment_variables: bool = True,
        lazy_import: bool | None = None,
    ) -> tuple[dict[str, Any], str, dict[str, str]]:
        """Load a file with its bases; returns its values, its text and environment variables."""
        if lazy_import is None and FileSteps._is_lazy_import(filename):
            raise ConfigParsingError(f"{filename} is a lazy config; load it by Config.fromfile")
        loader = TextLoader(use_predefined_variables, use_environment_variables, lazy_import)
        loaded = loader.load_file(str(filename))
        cfg: ConfigDict = to_config_dict(loaded.cfg)
        return dict(dict.items(cfg)), loaded.text, loaded.env_variables

    @staticmethod
    def _is_lazy_import(filename: str) -> bool:
        """Whether the file is a config of the lazy kind."""
        if not str(filename).endswith(".py"):
            return False
        return python_text.uses_lazy_imports(read_text(filename), str(filename))

    @staticmethod
    def _parse_lazy_import(filename: str, text: str | None = None) -> tuple[ConfigDict, set[str]]:
        """Run a lazy config; returns its values and the names among them that are imports."""
        names, imported = load_lazy(str(filename), text=text)
        values = python_text.config_values(names)
        return to_config_dict(values), imported & values.keys()

    @staticmethod
    def _dict_to_config_dict(cfg: Any, scope: str | None = None, has_scope: bool = True) -> Any:
        """Rebuild `cfg` with ConfigDicts, marking the outermost ones that have a `type`."""
        return to_config_dict(cfg, scope, mark=has_scope)

    @staticmethod
    def _dict_to_config_dict_lazy(cfg: Any) -> Any:
        """Rebuild `cfg` with ConfigDicts whose values are not imported when they are read."""
        return to_config_dict(cfg, kind=UnreadConfigDict)

    @staticmethod
    def _validate_py_syntax(filename: str) -> None:
        """Raise a SyntaxError that names file and line when a file is not Python."""
        python_text.parse(read_text(filename), str(filename))

    @staticmethod
    def _get_base_files(filename: str) -> list[str]:
        """The names of the bases of a file, as written in it."""
        text, _ = variables.hide_base_references(read_text(filename))
        extension = osp.splitext(filename)[1]
        if extension == ".py":
            return python_text.take_bases(python_text.parse(text, filename), filename)
        if extension not in (".yaml", ".yml", ".json"):
            raise ConfigParsingError(
                f"The config type should be py, json, yaml or yml, but got {extension}"
            )
        values = serialize.parse(text, extension, filename) or {}
        return python_text.checked_bases(values.get(BASE_KEY, []), filename)

    @staticmethod
    def _substitute_predefined_vars(filename: str, temp_config_name: str) -> None:
        """Write a file with its references to file names replaced."""

        def fill(text: str) -> tuple[str, None]:
            return variables.fill_predefined(text, str(filename)), None

        return _rewrite(filename, temp_config_name, fill)

    @staticmethod
    def _substitute_env_variables(filename: str, temp_config_name: str) -> dict[str, str]:
        """Write a file with its references to environment variables replaced; returns those."""
        return _rewrite(filename, temp_config_name, variables.fill_environment)

    @staticmethod
    def _pre_substitute_base_vars(filename: str, temp_config_name: str) -> dict[str, str]:
        """Write a file with tokens for its references to base values; returns token -> key."""
        return _rewrite(filename, temp_config_name, variables.hide_base_references)


def _rewrite(source: str, target: str, step: Callable[[str], tuple[str, T]]) -> T:
    text, found = step(read_text(source))
    Path(target).write_text(text, encoding="utf-8")
    return found
