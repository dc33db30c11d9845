"""Annotation files: JSON, YAML and pickled data, on a disk or behind any URL that fsspec opens."""

from __future__ import annotations

import json
import os
from pathlib import PurePath
from typing import IO, Any

from fasttrain.core.checkpoint import is_url
from fasttrain.core.checkpoint import load as load_restricted


def is_absolute(path: str) -> bool:
    """Whether `path` is an absolute path or a URL."""
    return os.path.isabs(path) or is_url(path)


def open_file(path: str, mode: str = "r") -> IO[Any]:
    """Open a local path or a URL."""
    if is_url(path):
        import fsspec

        return fsspec.open(path, mode, encoding=None if "b" in mode else "utf-8").open()
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


def load_annotations(path: str) -> Any:
    """Read a .json, .yaml, .yml, .pkl or .pickle file; a pickle may hold plain data only."""
    suffix = PurePath(path).suffix.lower()
    if suffix == ".json":
        with open_file(path) as file:
            return json.load(file)
    if suffix in (".yaml", ".yml"):
        import yaml

        with open_file(path) as file:
            return yaml.safe_load(file)
    if suffix in (".pkl", ".pickle"):
        with open_file(path, "rb") as file:
            return load_restricted(file)  # type: ignore[arg-type]
    raise TypeError(
        f"Unsupported format: {suffix.lstrip('.') or repr(path)}; an annotation file ends in "
        ".json, .yaml, .yml, .pkl or .pickle. Override `load_data_list` to read another one."
    )


def load_lines(path: str) -> list[str]:
    """The lines of a text file, without their ends."""
    with open_file(path) as file:
        return [line.rstrip("\n\r") for line in file]
