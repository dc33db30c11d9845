"""Versions as numbers that compare."""

import subprocess
import sys
import types

import pytest

from fasttrain.utils import digit_version, get_git_hash


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.6.0", (2, 6, 0, 0, 0, 0)),
        ("v1.3", (1, 3, 0, 0, 0, 0)),
        ("1.10.0+cu113", (1, 10, 0, 0, 0, 0)),
        ("1.5.0a0", (1, 5, 0, 0, -3, 0)),
        ("1.0.alpha", (1, 0, 0, 0, -3, 0)),
        ("1.0rc1", (1, 0, 0, 0, -1, 1)),
        ("2.0.dev1", (2, 0, 0, 0, -4, 0)),
        ("1.0.post2", (1, 0, 0, 0, 1, 2)),
        ("1.2.3.4.5", (1, 2, 3, 4, 0, 0)),
        ("1!2.0", (2, 0, 0, 0, 0, 0)),
    ],
)
def test_digit_version(version, expected):
    assert digit_version(version) == expected


def test_digit_version_compares_as_versions_do():
    ordered = ["1.0.dev0", "1.0a1", "1.0b1", "1.0rc1", "1.0", "1.0.post1", "1.0.1", "1.9", "1.10"]
    assert sorted(set(ordered), key=digit_version) == ordered
    assert digit_version("1.2.3", length=2) == (1, 2, 0, 0)


@pytest.mark.parametrize("version", ["abc", "", "1.x", 3])
def test_not_a_version(version):
    with pytest.raises(ValueError, match=r"Invalid version: .*expected a text such"):
        digit_version(version)
    with pytest.raises(AssertionError, match="'parrots' is no version"):
        digit_version("parrots")


@pytest.mark.parametrize("installed", [True, False])
def test_the_error_is_of_the_class_that_packaging_has(monkeypatch, installed):
    package = types.ModuleType("packaging.version")
    package.InvalidVersion = type("InvalidVersion", (ValueError,), {})
    monkeypatch.setitem(sys.modules, "packaging.version", package if installed else None)
    with pytest.raises(ValueError, match="Invalid version") as caught:
        digit_version("x")
    assert caught.type is (package.InvalidVersion if installed else ValueError)


def test_git_hash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert get_git_hash(fallback="none") == "none"
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *arguments], check=True)
    assert len(get_git_hash()) == 40 and get_git_hash(digits=7) == get_git_hash()[:7]
    with pytest.raises(TypeError, match="digits must be None or an integer, but got 'x'"):
        get_git_hash(digits="x")
