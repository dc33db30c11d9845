"""Config options on a command line."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from .config_dict import ConfigDict

logger = logging.getLogger("fasttrain.config")

_BRACKETS = {"(": ")", "[": "]"}


class DictAction(argparse.Action):
    """Collect `key=value` arguments in a dict.

    Values are numbers, booleans, None, strings, or lists and tuples of such: `a=1,2`,
    `a=[1,(x,y)]`, `a="[1,(x,y)]"`, `a="x y"`.
    """

    @staticmethod
    def _parse_int_float_bool(val: str) -> Any:
        for number in (int, float):
            try:
                return number(val)
            except ValueError:
                continue
        words = {"true": True, "false": False}
        return None if val == "None" else words.get(val.lower(), val)

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """Parse a value that may be a list or tuple.

        Raises:
            AssertionError: brackets or quotes are not balanced.
        """
        return _parse(val.strip(), val)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for value in [values] if isinstance(values, str) else values or ():
            key, equals, text = value.partition("=")
            if not equals:
                raise argparse.ArgumentError(self, f"expected key=value, but got {value!r}")
            options[key] = self._parse_iterable(text)
        setattr(namespace, self.dest, options)


def _parse(text: str, whole: str) -> Any:
    parts = _split(text, whole)
    if len(parts) > 1 or text.endswith(","):
        return [_parse(part, whole) for part in parts]
    if text[:1] in ("'", '"'):
        inner = text[1:-1]
        # Quotes around brackets were meant for a shell; around anything else they make a string.
        return _parse(inner.strip(), whole) if inner.strip()[:1] in _BRACKETS else inner
    if text[:1] in _BRACKETS:
        kind = tuple if text.startswith("(") else list
        return kind(_parse(part, whole) for part in _split(text[1:-1].strip(), whole))
    return DictAction._parse_int_float_bool(text)


def _split(text: str, whole: str) -> list[str]:
    """Split at the commas that are outside brackets and quotes; a last comma ends the last part."""
    parts = [""]
    expected: list[str] = []  # closing brackets, innermost last
    quote = ""
    before = ","  # the last character that is no space
    for character in text:
        if character == "," and not expected and not quote:
            parts.append("")
        else:
            parts[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and before in "([,":
            quote = character
        elif character in _BRACKETS:
            expected.append(_BRACKETS[character])
        elif character in _BRACKETS.values():
            assert expected and expected.pop() == character, f"Imbalanced brackets exist in {whole}"
        before = before if character.isspace() else character
    assert not expected, f"Imbalanced brackets exist in {whole}"
    assert not quote, f"Imbalanced quotes exist in {whole}"
    parts = [part.strip() for part in parts]
    return parts[:-1] if not parts[-1] else parts


def add_args(
    parser: argparse.ArgumentParser, cfg: dict[str, Any], prefix: str = ""
) -> argparse.ArgumentParser:
    """Give a parser an option for every value of a config, `--model.depth` for nested ones."""
    for key, value in cfg.items():
        option = f"--{prefix}{key}"
        if isinstance(value, ConfigDict | dict):
            add_args(parser, value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            parser.add_argument(option, action="store_true")
        elif isinstance(value, str | int | float):
            parser.add_argument(option, type=type(value))
        elif isinstance(value, list | tuple):
            parser.add_argument(option, type=type(value[0]) if value else str, nargs="+")
        else:
            logger.info("cannot parse key %s%s of type %s", prefix, key, type(value))
    return parser
