"""Tell errors of the user's input, shown as a paragraph, from failures that need a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# What a wrong config, path or argument raises somewhere below.
INPUT_ERRORS = (
    OSError, ValueError, TypeError, LookupError, SyntaxError, ImportError, AttributeError,
    AssertionError, NotImplementedError, RuntimeError,
)  # fmt: skip


class UsageError(Exception):
    """Something the user gave cannot be used; the text says what and what to do."""


@contextmanager
def user_input(doing: str) -> Iterator[None]:
    """Turn errors in the block into a `UsageError` that says what was being done."""
    try:
        yield
    except INPUT_ERRORS as error:
        raise UsageError(f"{doing}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """The text of an error with what its kind adds to it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    if isinstance(error, KeyError) and error.args:
        # str() of a KeyError is the repr of its text
        return str(error.args[0]) if " " in str(error.args[0]) else f"missing key {error}"
    return str(error) or type(error).__name__
