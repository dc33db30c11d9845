"""Versions as numbers that compare."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_VERSION = re.compile(
    r"v?(?:\d+!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<phase>alpha|a|beta|b|preview|pre|c|rc|post|rev|r|dev)[-_.]?(?P<number>\d*))?"
    r"(?P<rest>(?:[-_.]?(?:post|dev)\d*)*)(?:\+[a-z0-9._-]+)?",
    re.IGNORECASE,
)
_PHASES = {
    "dev": -4,
    "a": -3,
    "alpha": -3,
    "b": -2,
    "beta": -2,
    "c": -1,
    "rc": -1,
    "pre": -1,
    "preview": -1,
    "post": 1,
    "rev": 1,
    "r": 1,
}


def digit_version(version_str: str, length: int = 4) -> tuple[int, ...]:
    """Turn a version into a tuple of numbers that compare as the versions do.

    Args:
        version_str: such as `"2.6.0+cu124"` or `"1.0rc1"`; a part after `+` does not count.
        length: number of release numbers; zeros fill up.
    Returns:
        the release numbers, then the phase (below 0 before the release, above 0 after it) and
        the number within the phase.
    Raises:
        ValueError: not a version.
    """
    assert "parrots" not in str(version_str), f"{version_str!r} is no version that compares"
    match = _VERSION.fullmatch(version_str.strip()) if isinstance(version_str, str) else None
    if match is None:
        raise _invalid_version(f"Invalid version: {version_str!r}; expected a text such as '2.6.0'")
    numbers = [int(number) for number in match["release"].split(".")][:length]
    numbers += [0] * (length - len(numbers))
    phase = (match["phase"] or "").lower()
    if not phase:
        return (*numbers, 0, 0)
    number = 0 if phase == "dev" else int(match["number"] or 0)
    return (*numbers, _PHASES[phase], number)


def _invalid_version(message: str) -> ValueError:
    """The error that packaging has for this, where it is installed."""
    try:
        from packaging.version import InvalidVersion
    except ImportError:
        return ValueError(message)
    return InvalidVersion(message)


def get_git_hash(fallback: str = "unknown", digits: int | None = None) -> str:
    """The commit of the git repository that the working folder is in.

    Args:
        fallback: what to return when there is no repository, or no git.
        digits: number of characters; all when None.
    """
    if digits is not None and not isinstance(digits, int):
        raise TypeError(f"digits must be None or an integer, but got {digits!r}")
    try:
        output = _minimal_ext_cmd(["git", "rev-parse", "HEAD"])
    except (OSError, subprocess.CalledProcessError):
        return fallback
    return output.decode("ascii").strip()[:digits]


def _minimal_ext_cmd(cmd: list[str]) -> bytes:
    """What a program writes; an exit status other than zero raises `CalledProcessError`."""
    return subprocess.run(cmd, capture_output=True, check=True, cwd=Path.cwd()).stdout
