"""Paths and files."""

from __future__ import annotations

import errno
import os
import os.path as osp
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def is_filepath(x: Any) -> bool:
    """Whether `x` is of a type that paths have."""
    return isinstance(x, str | Path)


def is_abs(path: str) -> bool:
    """Whether a path is absolute, or leads to a remote store."""
    return osp.isabs(path) or path.startswith(("http://", "https://", "s3://"))


def fopen(filepath: str | Path, *args: Any, **kwargs: Any) -> Any:
    """Open a file given by a string or a Path."""
    if not is_filepath(filepath):
        raise ValueError(f"`filepath` should be a string or a Path, but got {type(filepath)}")
    return open(filepath, *args, **kwargs)


def check_file_exist(filename: str, msg_tmpl: str = 'file "{}" does not exist') -> None:
    """Raise a FileNotFoundError with the given text when there is no such file."""
    if not osp.isfile(filename):
        raise FileNotFoundError(msg_tmpl.format(filename))


def mkdir_or_exist(dir_name: str | Path, mode: int = 0o777) -> None:
    """Make a folder with its parents, if it is not there; an empty name makes none."""
    if str(dir_name):
        os.makedirs(osp.expanduser(dir_name), mode=mode, exist_ok=True)


def symlink(src: str, dst: str, overwrite: bool = True, **kwargs: Any) -> None:
    """Make `dst` a symbolic link to `src`, in place of what `dst` was when `overwrite` is set."""
    if overwrite and osp.lexists(dst):
        os.remove(dst)
    os.symlink(src, dst, **kwargs)


def scandir(
    dir_path: str | Path,
    suffix: str | tuple[str, ...] | None = None,
    recursive: bool = False,
    case_sensitive: bool = True,
) -> Iterator[str]:
    """Find the files of a folder, hidden ones left out.

    Args:
        dir_path: the folder.
        suffix: endings that file names may have; any when None.
        recursive: look into folders below, too.
        case_sensitive: whether upper and lower case differ in endings.
    Yields:
        paths relative to the folder.
    """
    if not is_filepath(dir_path):
        raise TypeError('"dir_path" must be a string or Path object')
    if not (suffix is None or isinstance(suffix, str | tuple)):
        raise TypeError('"suffix" must be a string or tuple of strings')
    if suffix is not None and not case_sensitive:
        suffix = suffix.lower() if isinstance(suffix, str) else tuple(s.lower() for s in suffix)
    return _scan(str(dir_path), str(dir_path), suffix, recursive, case_sensitive)


def _scan(
    folder: str,
    root: str,
    suffix: str | tuple[str, ...] | None,
    recursive: bool,
    case_sensitive: bool,
) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file() and not entry.name.startswith("."):
                name = entry.name if case_sensitive else entry.name.lower()
                if suffix is None or name.endswith(suffix):
                    yield osp.relpath(entry.path, root)
            elif recursive and entry.is_dir():
                yield from _scan(entry.path, root, suffix, recursive, case_sensitive)


def find_vcs_root(path: str, markers: tuple[str, ...] = (".git",)) -> str | None:
    """The nearest folder, from `path` upwards, that holds one of the markers."""
    folder = osp.dirname(path) if osp.isfile(path) else path
    before = None
    while folder != before:
        if any(osp.exists(osp.join(folder, marker)) for marker in markers):
            return folder
        before, folder = folder, osp.dirname(folder)
    return None


def write_text(path: str | Path, text: str) -> None:
    """Write a text file so that no half-written one is ever seen under its name.

    A path with `://` goes through fsspec.
    """
    if "://" in str(path):
        import fsspec

        with fsspec.open(str(path), "w", encoding="utf-8") as remote:
            remote.write(text)
        return
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder of this file does not exist", str(target))
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115  (moved to its name, not deleted)
        "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
    )
    try:
        with file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(file.name, 0o666 & ~umask)  # what open() gives; a temporary file has 0o600
        os.replace(file.name, target)
    except BaseException:
        os.unlink(file.name)
        raise
