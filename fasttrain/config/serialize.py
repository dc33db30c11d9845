"""Reading and writing YAML and JSON."""

from __future__ import annotations

import json
from typing import Any

import yaml

from .formatting import scalar_text

_TUPLE_TAG = "tag:yaml.org,2002:python/tuple"


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads the tuples that `dump` writes."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which also writes tuples and, as strings, whatever YAML does not know."""


def _construct_tuple(loader: yaml.SafeLoader, node: Any) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor(_TUPLE_TAG, _construct_tuple)
_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_sequence(_TUPLE_TAG, value))


def parse(text: str, extension: str, filename: str) -> Any:
    """Read YAML or JSON.

    Raises:
        yaml.YAMLError: with the file's name and line.
        json.JSONDecodeError: with the file's name and line.
    """
    if extension == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as e:
            raise json.JSONDecodeError(f"{filename}: {e.msg}", e.doc, e.pos) from e
    loader = _Loader(text)
    loader.name = filename
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def dump(cfg: dict[Any, Any], extension: str) -> str:
    """Write plain data as YAML or JSON."""
    if extension == ".json":
        return json.dumps(cfg, default=_json_default)
    return yaml.dump(_yaml_value(cfg), Dumper=_Dumper, sort_keys=True, allow_unicode=True)


def _json_default(value: Any) -> Any:
    if isinstance(value, set | frozenset | range):
        return list(value)
    return _array_value(value)


def _yaml_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _yaml_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(_yaml_value(item) for item in value)
    if isinstance(value, set | frozenset | range):
        return [_yaml_value(item) for item in value]
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    return _array_value(value)


def _array_value(value: Any) -> Any:
    """Numbers of an array or of a scalar of an array library; a string of anything else."""
    is_array = hasattr(value, "tolist") and not isinstance(value, type)
    return value.tolist() if is_array else scalar_text(value)
