"""A config: values read from a file, with what is known of the file."""

from __future__ import annotations

import argparse
import copy
import difflib
import os
import os.path as osp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fasttrain.utils.imports import import_modules_from_strings
from fasttrain.utils.path import write_text

from . import python_text, serialize
from .actions import DictAction, add_args
from .config_dict import ConfigDict, to_config_dict
from .file_steps import FileSteps
from .formatting import format_config
from .language import BASE_KEY, DELETE_KEY, DEPRECATION_KEY, RESERVED_KEYS
from .lazy_file import read_base
from .merging import merge_a_into_b, nested_options
from .places import is_remote, read_text
from .text_file import TextLoader, checked_extension

__all__ = [
    "BASE_KEY",
    "DELETE_KEY",
    "DEPRECATION_KEY",
    "RESERVED_KEYS",
    "Config",
    "ConfigDict",
    "DictAction",
    "add_args",
    "read_base",
]

# The attributes of a Config that are not keys of the config.
_FIELDS = (
    "_cfg_dict",
    "_filename",
    "_text",
    "_env_variables",
    "_format_python_code",
    "_imported_names",
)


class Config(FileSteps):
    """Config values with attribute access, and where they come from.

    Keys are read and written as attributes or items; dicts among the values are `ConfigDict`s.

    Args:
        cfg_dict: the values.
        cfg_text: the text they were read from; read from `filename` when not given.
        filename: the file they were read from.
        env_variables: the environment variables that the file used.
        format_python_code: False writes every key of `pretty_text` on a single line.
    Raises:
        KeyError: a key is one of the reserved names.
    """

    _cfg_dict: ConfigDict
    _filename: str | None
    _text: str
    _env_variables: dict[str, str]
    _format_python_code: bool
    _imported_names: set[str]

    def __init__(
        self,
        cfg_dict: dict[str, Any] | None = None,
        cfg_text: str | None = None,
        filename: str | Path | None = None,
        env_variables: dict[str, str] | None = None,
        format_python_code: bool = True,
    ) -> None:
        filename = str(filename) if isinstance(filename, Path) else filename
        if cfg_dict is None:
            cfg_dict = {}
        elif not isinstance(cfg_dict, dict):
            raise TypeError(f"cfg_dict must be a dict, but got {type(cfg_dict)}")
        for key in cfg_dict:
            if key in RESERVED_KEYS:
                raise KeyError(f"{key} is reserved for config file")
        if not isinstance(cfg_dict, ConfigDict):
            cfg_dict = ConfigDict(cfg_dict)
        if cfg_text is None:
            cfg_text = read_text(filename) if filename else ""
        self.__setstate__(
            (cfg_dict, filename, cfg_text, env_variables or {}, format_python_code, set())
        )

    # Making configs.

    @staticmethod
    def fromfile(
        filename: str | Path,
        use_predefined_variables: bool = True,
        import_custom_modules: bool = True,
        use_environment_variables: bool = True,
        lazy_import: bool | None = None,
        format_python_code: bool = True,
    ) -> Config:
        """Load a config file with its bases.

        Args:
            filename: a .py, .yaml, .yml or .json file; local, or a URL for fsspec.
            use_predefined_variables: replace `{{ fileDirname }}` and the like.
            import_custom_modules: import what the key `custom_imports` lists.
            use_environment_variables: replace `{{$NAME:default}}`.
            lazy_import: whether imports of a .py config give stand-ins that are imported when
                they are used; None looks into the file.
            format_python_code: see `Config`.
        """
        filename = str(filename)
        path = filename if is_remote(filename) else osp.expanduser(filename)
        if not is_remote(path) and not osp.isfile(path):
            raise FileNotFoundError(f"the config file {osp.abspath(path)} does not exist")
        extension = checked_extension(path)
        lazy = Config._is_lazy_import(path) if lazy_import is None else lazy_import
        imported: set[str] = set()
        if lazy and extension == ".py":
            cfg_dict, imported = Config._parse_lazy_import(path)
            text, env_variables = read_text(path), {}
        else:
            loader = TextLoader(use_predefined_variables, use_environment_variables, lazy_import)
            loaded = loader.load_file(path)
            cfg_dict = to_config_dict(loaded.cfg)
            text, env_variables = loaded.text, loaded.env_variables
        if import_custom_modules and cfg_dict.get("custom_imports"):
            _import_custom(cfg_dict["custom_imports"])
        cfg = Config(cfg_dict, text, filename, env_variables, format_python_code)
        object.__setattr__(cfg, "_imported_names", imported)
        return cfg

    @staticmethod
    def fromstring(cfg_str: str, file_format: str) -> Config:
        """Load the text of a config file; bases are found relative to the working folder.

        What the key `custom_imports` lists is imported.

        Args:
            cfg_str: the text.
            file_format: the extension that the file would have, such as `".py"`.
        """
        extension = checked_extension(f"config{file_format}")
        place = osp.join(os.getcwd(), f"<string>{file_format}")
        imported: set[str] = set()
        env_variables: dict[str, str] = {}
        if extension == ".py" and python_text.uses_lazy_imports(cfg_str, place):
            cfg_dict, imported = Config._parse_lazy_import(place, cfg_str)
        else:
            loaded = TextLoader(use_predefined_variables=False).load_text(cfg_str, place, extension)
            cfg_dict, env_variables = to_config_dict(loaded.cfg), loaded.env_variables
        if cfg_dict.get("custom_imports"):
            _import_custom(cfg_dict["custom_imports"])
        cfg = Config(cfg_dict, cfg_str, env_variables=env_variables)
        object.__setattr__(cfg, "_imported_names", imported)
        return cfg

    @staticmethod
    def auto_argparser(description: str | None = None) -> tuple[argparse.ArgumentParser, Config]:
        """Return a parser with an option per key of the config that the command line names."""
        first = argparse.ArgumentParser(description=description, add_help=False)
        first.add_argument("config", help="config file path")
        cfg = Config.fromfile(first.parse_known_args()[0].config)
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("config", help="config file path")
        return add_args(parser, cfg._cfg_dict), cfg

    @staticmethod
    def diff(cfg1: str | Path | Config, cfg2: str | Path | Config) -> str:
        """The unified diff of two configs' texts."""
        texts = [
            (cfg if isinstance(cfg, Config) else Config.fromfile(cfg)).pretty_text
            for cfg in (cfg1, cfg2)
        ]
        before, after = (text.split("\n") for text in texts)
        lines = difflib.unified_diff(before, after)
        return "".join(f"{line}\n" for line in lines) + "\n"

    # What is known of the file.

    @property
    def filename(self) -> str | None:
        """The file that the config was read from."""
        return self._filename

    @property
    def text(self) -> str:
        """The text that the config was read from."""
        return self._text

    @property
    def env_variables(self) -> dict[str, str]:
        """The environment variables that the config used."""
        return self._env_variables

    # Writing configs.

    @property
    def pretty_text(self) -> str:
        """Python text that gives the same config, with sorted keys."""
        width = 80 if self._format_python_code else float("inf")
        return format_config(self._to_lazy_dict(), width)

    def dump(self, file: str | Path | None = None) -> str | None:
        """Write the config to a file, or return its text.

        Args:
            file: path; its extension (.py, .yaml, .yml, .json) decides on the format. None
                returns the text, in the format of the file that the config was read from.
        """
        path = str(file if file is not None else self.filename or "config.py")
        extension = osp.splitext(path)[1]
        if extension == ".py":
            text = self.pretty_text
        elif extension in (".yaml", ".yml", ".json"):
            text = serialize.dump(self.to_dict(), extension)
        else:
            shown = extension.lstrip(".") or path
            raise TypeError(f"Unsupported format: {shown}; use .py, .yaml, .yml or .json")
        if file is None:
            return text
        write_text(path, text)
        return None

    def to_dict(self, keep_imported: bool = False) -> dict[str, Any]:
        """The values in plain dicts; what is imported lazily appears as its import path.

        Args:
            keep_imported: include the names that a lazy config imports.
        """
        return self._without_imports(self._cfg_dict.to_dict(), keep_imported)

    def _to_lazy_dict(self, keep_imported: bool = False) -> dict[str, Any]:
        """The values in plain dicts, with the lazily imported objects not yet imported."""
        return self._without_imports(self._cfg_dict._to_lazy_dict(), keep_imported)

    def _without_imports(self, values: dict[str, Any], keep_imported: bool) -> dict[str, Any]:
        dropped = set() if keep_imported else self._imported_names
        return {key: value for key, value in values.items() if key not in dropped}

    # Changing configs.

    def merge_from_dict(self, options: dict[str, Any], allow_list_keys: bool = True) -> None:
        """Override values.

        Args:
            options: `{"model.depth": 50}` overrides `model.depth`; dicts are merged.
            allow_list_keys: let `"hooks.0.interval"` mean an entry of a list.
        """
        merged = merge_a_into_b(nested_options(options), self._cfg_dict, allow_list_keys)
        object.__setattr__(self, "_cfg_dict", to_config_dict(merged))

    # A config acts as its dict of values.

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:  # not set yet: an object that copy or pickle is just making
            raise AttributeError(f"'Config' object has no attribute {name!r} yet")
        return getattr(self._cfg_dict, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cfg_dict, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._cfg_dict, name)

    def __getitem__(self, name: str) -> Any:
        return self._cfg_dict[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._cfg_dict[name] = value

    def __delitem__(self, name: str) -> None:
        del self._cfg_dict[name]

    def __contains__(self, name: str) -> bool:
        return name in self._cfg_dict

    def __iter__(self) -> Iterator[str]:
        return iter(self._cfg_dict)

    def __len__(self) -> int:
        return len(self._cfg_dict)

    def __repr__(self) -> str:
        return f"Config (path: {self.filename}): {self._cfg_dict!r}"

    # Copies.

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(object.__getattribute__(self, name) for name in _FIELDS)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(_FIELDS, state, strict=True):
            object.__setattr__(self, name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other

    def __copy__(self) -> Config:
        other = type(self).__new__(type(self))
        cfg_dict, *rest = self.__getstate__()
        other.__setstate__((cfg_dict.copy(), *rest))
        return other

    copy = __copy__


def _import_custom(custom_imports: dict[str, Any]) -> None:
    import sys

    try:
        import_modules_from_strings(**custom_imports)
    except ImportError as e:
        search_path = "\n    ".join(sys.path)
        raise ImportError(
            f"Failed to import custom modules from {custom_imports}, the current sys.path is: "
            f"\n    {search_path}\nYou should set `PYTHONPATH` to make `sys.path` include the "
            "directory which contains your custom module"
        ) from e
