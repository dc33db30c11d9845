"""The references that a config's text may hold: file names, environment, values of the bases."""

from __future__ import annotations

import logging
import os
import os.path as osp
import re
import uuid
from collections.abc import Mapping
from typing import Any

from fasttrain.utils.misc import map_sequence

from .language import BASE_KEY

logger = logging.getLogger("fasttrain.config")

_ENV = re.compile(
    r"\{\{\s*(?P<quote>['\"]?)\s*\$(?P<name>\w+)\s*:\s*(?P<default>.*?)\s*(?P=quote)\s*\}\}"
)
_BASE = re.compile(r"\{\{\s*" + BASE_KEY + r"\.([\w.]+)\s*\}\}")


def fill_predefined(text: str, filename: str) -> str:
    """Replace `{{ fileDirname }}` and the like by the parts of the config's own path."""
    basename = osp.basename(filename)
    stem, extension = osp.splitext(basename)
    values = {
        "fileDirname": osp.dirname(filename),
        "fileBasename": basename,
        "fileBasenameNoExtension": stem,
        "fileExtname": extension,
    }
    for name, value in values.items():
        value = value.replace("\\", "/")  # a backslash would start an escape in a string
        text = value.join(re.split(r"\{\{\s*" + name + r"\s*\}\}", text))
    return text


def fill_environment(text: str) -> tuple[str, dict[str, str]]:
    """Replace `{{$NAME:default}}` by environment variables.

    Returns:
        the text, and the variables that were found in the environment.
    Raises:
        KeyError: a variable is not set and has no default.
    """
    used: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if name in os.environ:
            used[name] = os.environ[name]
            return used[name]
        if not default:
            raise KeyError(
                f"`{name}` cannot be found in `os.environ`. Please set `{name}` in environment "
                "or give a default value."
            )
        return default

    text = _ENV.sub(replace, text)
    for name, value in used.items():
        logger.info("the config uses the environment variable `%s`: %s", name, value)
    return text, used


def hide_base_references(text: str) -> tuple[str, dict[str, str]]:
    """Replace `{{_base_.a.b}}` by string tokens, so that the text can be parsed.

    Returns:
        the text, and token -> the dotted key that it stands for.
    """
    tokens: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        token = f"_{match[1]}_{uuid.uuid4().hex[:6]}"
        tokens[token] = match[1]
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        return token if _ends_in_string(line) else f'"{token}"'

    return _BASE.sub(replace, text), tokens


def _ends_in_string(line: str) -> bool:
    """Whether the end of `line`, the part before a reference, is within a quoted string."""
    quote = ""
    for character in re.sub(r"\\.", "", line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#":
            return False
    return bool(quote)


def fill_base_references(cfg: Any, tokens: Mapping[str, str], base: Any) -> Any:
    """Replace the tokens of `hide_base_references` within a nested value.

    A string that is a token becomes the base's value; within a longer string the value's text
    is put in.
    """
    if isinstance(cfg, dict):
        filled = cfg.copy()
        for key, value in dict.items(cfg):
            dict.__setitem__(filled, key, fill_base_references(value, tokens, base))
        return filled
    if isinstance(cfg, list | tuple):
        return map_sequence(lambda value: fill_base_references(value, tokens, base), cfg)
    if isinstance(cfg, str):
        if cfg in tokens:
            return base_value(base, tokens[cfg])
        for token, dotted_key in tokens.items():
            if token in cfg:
                cfg = cfg.replace(token, str(base_value(base, dotted_key)))
    return cfg


def base_value(base: Any, dotted_key: str) -> Any:
    """The base configs' value at `"a.b"`.

    Raises:
        KeyError: no base has it.
    """
    value = base
    for key in dotted_key.split("."):
        if not (isinstance(value, dict) and key in value):
            known = sorted(map(str, value)) if isinstance(value, dict) else type(value)
            raise KeyError(
                f"{key!r} of the reference {{{{_base_.{dotted_key}}}}} is not in the base configs; "
                f"there is: {known}"
            )
        value = value[key]
    return value
