"""Loading a config file together with its bases, named by `_base_`."""

from __future__ import annotations

import ast
import os.path as osp
from dataclasses import dataclass, field
from typing import Any

from . import python_text, serialize, variables
from .config_dict import ConfigDict, to_config_dict
from .language import BASE_KEY, ConfigParsingError
from .merging import join_bases, merge_a_into_b, pop_deprecation
from .places import is_remote, read_text, resolve_base

EXTENSIONS = (".py", ".yaml", ".yml", ".json")

_LAZY_BASE = (
    "The configuration file type in the inheritance chain must match the current configuration "
    'file type, either "lazy_import" or non-"lazy_import". {} uses `with read_base(): ...` or '
    "imports a module that does not come with Python, and {} names it in `_base_`."
)


@dataclass(frozen=True)
class Loaded:
    """What a config file and its bases say."""

    cfg: dict[str, Any]
    text: str
    env_variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TextLoader:
    """How config files are read; one setting holds for a file and all its bases.

    Args:
        use_predefined_variables: replace `{{ fileDirname }}` and the like.
        use_environment_variables: replace `{{$NAME:default}}`.
        lazy_import: False runs bases of the lazy kind as ordinary Python; None refuses them.
    """

    use_predefined_variables: bool = True
    use_environment_variables: bool = True
    lazy_import: bool | None = None

    def load_file(self, filename: str, chain: tuple[str, ...] = ()) -> Loaded:
        """Load a file.

        Args:
            filename: path or URL.
            chain: the files that name this one as a base, outermost first.
        Raises:
            OSError: another file type than Python, YAML or JSON.
            FileNotFoundError: the file, or a base of it, does not exist.
        """
        path = filename if is_remote(filename) else osp.abspath(filename)
        extension = checked_extension(path)
        if path in chain:
            raise ConfigParsingError(f"the configs name each other: {' -> '.join([*chain, path])}")
        try:
            text = read_text(path)
        except FileNotFoundError as e:
            asked_by = f", which {chain[-1]} names in `{BASE_KEY}`," if chain else ""
            raise FileNotFoundError(f"the config file {path}{asked_by} does not exist") from e
        may_be_lazy = extension == ".py" and chain and self.lazy_import is None
        if may_be_lazy and python_text.uses_lazy_imports(text, path):
            raise ConfigParsingError(_LAZY_BASE.format(path, chain[-1]))
        return self.load_text(text, path, extension, chain)

    def load_text(
        self, text: str, filename: str, extension: str, chain: tuple[str, ...] = ()
    ) -> Loaded:
        """Load the text of a file, or one that is to be taken as the text of `filename`."""
        own_text = f"{filename}\n{text}"
        env_variables: dict[str, str] = {}
        if self.use_predefined_variables:
            text = variables.fill_predefined(text, filename)
        if self.use_environment_variables:
            text, env_variables = variables.fill_environment(text)
        text, tokens = variables.hide_base_references(text)

        source: ast.Module | dict[str, Any]
        if extension == ".py":
            source = python_text.parse(text, filename)
            bases = python_text.take_bases(source, filename)
        else:
            source = _mapping(serialize.parse(text, extension, filename), filename)
            bases = python_text.checked_bases(source.pop(BASE_KEY, []), filename)

        base, loaded_bases = self._load_bases(bases, filename, chain)
        if isinstance(source, ast.Module):
            namespace = python_text.run(source, filename, {BASE_KEY: base})
            namespace.pop(BASE_KEY, None)
            imported = python_text.imported_names(ast.walk(source))
            cfg = python_text.config_values(namespace, imported)
        else:
            cfg = source
        cfg = variables.fill_base_references(cfg, tokens, base)
        pop_deprecation(cfg, filename)
        for loaded in loaded_bases:
            env_variables = {**loaded.env_variables, **env_variables}
        whole_text = "\n".join([*(loaded.text for loaded in loaded_bases), own_text])
        merged = merge_a_into_b(cfg, dict(dict.items(base)))
        return Loaded(merged, whole_text, env_variables)

    def _load_bases(
        self, names: list[str], filename: str, chain: tuple[str, ...]
    ) -> tuple[ConfigDict, list[Loaded]]:
        loaded_bases = []
        parts = []
        for name in names:
            path, scope = resolve_base(name, filename)
            loaded = self.load_file(path, (*chain, filename))
            loaded_bases.append(loaded)
            parts.append((path, to_config_dict(loaded.cfg, scope)))
        return to_config_dict(join_bases(parts)), loaded_bases


def checked_extension(filename: str) -> str:
    """The extension of a config file.

    Raises:
        OSError: none that a config may have.
    """
    extension = osp.splitext(filename)[1]
    if extension not in EXTENSIONS:
        raise OSError(f"Only py/yml/yaml/json type are supported now! Got {filename}")
    return extension


def _mapping(value: Any, filename: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigParsingError(
            f"{filename}: a config must have keys at its top level, but got {type(value)}"
        )
    return value
