"""One small interface over local folders and, through fsspec, any URL."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from fasttrain.core.checkpoint.durable import write_text_durably

_URL = re.compile(r"^(?:[\w.-]+:)?(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_ALIASES = {"petrel": "s3", "ceph": "s3"}


class Place(Protocol):
    """Where checkpoints stand."""

    name: str

    def join_path(self, path: str, *parts: str) -> str: ...
    def exists(self, path: str) -> bool: ...
    def isfile(self, path: str) -> bool: ...
    def remove(self, path: str) -> None: ...
    def put_text(self, text: str, path: str) -> None: ...
    def get_text(self, path: str) -> str: ...
    def put_file(self, local: str, path: str) -> None: ...
    def get_file(self, path: str, local: str) -> None: ...


class LocalPlace:
    """Folders of this machine."""

    name = "LocalBackend"

    def join_path(self, path: str, *parts: str) -> str:
        return os.path.join(path, *parts)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def isfile(self, path: str) -> bool:
        return os.path.isfile(path)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.remove(path)

    def put_text(self, text: str, path: str) -> None:
        write_text_durably(path, text)

    def get_text(self, path: str) -> str:
        return Path(path).read_text(encoding="utf-8")

    def put_file(self, local: str, path: str) -> None:
        shutil.move(local, path)

    def get_file(self, path: str, local: str) -> None:
        shutil.copyfile(path, local)


class RemotePlace:
    """Any URL that fsspec reads and writes, such as s3://, gs://, memory:// or sftp://.

    Args:
        scheme: of the URLs.
        options: passed to fsspec's file system.

    Raises:
        ImportError: fsspec, or what it needs for the scheme, is not installed; names it.
    """

    def __init__(self, scheme: str, options: Mapping[str, Any]) -> None:
        self.name = f"{scheme}Backend"
        scheme = _ALIASES.get(scheme, scheme)
        try:
            import fsspec

            self._files = fsspec.filesystem(scheme, **options)
        except ImportError as error:
            raise ImportError(f"URLs with {scheme}:// need a package: {error}") from error
        except ValueError as error:
            raise ValueError(f"no way to open URLs with {scheme}://: {error}") from error

    def join_path(self, path: str, *parts: str) -> str:
        return "/".join([path.rstrip("/"), *(part.strip("/") for part in parts)])

    def exists(self, path: str) -> bool:
        return bool(self._files.exists(_bare(path)))

    def isfile(self, path: str) -> bool:
        return bool(self._files.isfile(_bare(path)))

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(_bare(path))

    def put_text(self, text: str, path: str) -> None:
        self._files.pipe_file(_bare(path), text.encode("utf-8"))

    def get_text(self, path: str) -> str:
        return bytes(self._files.cat_file(_bare(path))).decode("utf-8")

    def put_file(self, local: str, path: str) -> None:
        parent = _bare(path).rpartition("/")[0]
        with suppress(Exception):  # stores without folders refuse; the upload then tells the cause
            self._files.makedirs(parent, exist_ok=True)
        self._files.put_file(local, _bare(path))

    def get_file(self, path: str, local: str) -> None:
        self._files.get_file(_bare(path), local)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether `path` names something outside the local file system."""
    match = _URL.match(os.fspath(path))
    return match is not None and match["scheme"] not in ("file", "local")


def place_of(path: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Place:
    """The place that `path` belongs to; `options` reach fsspec (`backend` in them is ignored)."""
    if not is_url(path):
        return LocalPlace()
    match = _URL.match(os.fspath(path))
    assert match is not None
    left = {key: value for key, value in (options or {}).items() if key != "backend"}
    return RemotePlace(match["scheme"], left)


def local_copy_name(path: str) -> str:
    """A fresh local file name for a copy of a remote file; the caller deletes it."""
    handle, name = tempfile.mkstemp(suffix=Path(path).suffix, prefix="fasttrain-")
    os.close(handle)
    return name


def _bare(path: str) -> str:
    """The URL without a cluster prefix (`cluster:s3://...`) and with the scheme fsspec knows."""
    match = _URL.match(path)
    if match is None:
        return path
    scheme = match["scheme"]
    return f"{_ALIASES.get(scheme, scheme)}://{path[match.end() :]}"
