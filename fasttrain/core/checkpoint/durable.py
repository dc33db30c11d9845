"""Replace a file durably: a reader sees the whole old file or the whole new one, never a part."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = re.compile(r"^\.(?P<name>.+)\.(?P<host>[^/]+)\+(?P<pid>\d+)\+[0-9a-f]{8}\.tmp$")


def temporary_path(path: Path) -> Path:
    """A fresh hidden name beside `path`; host and process in it let leftovers be found."""
    host = socket.gethostname().replace("+", "_") or "localhost"
    return path.with_name(f".{path.name}.{host}+{os.getpid()}+{secrets.token_hex(4)}.tmp")


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable (some file systems refuse; their renames are durable)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_exclusive(path: Path) -> int:
    """A descriptor of the new file `path`, open for reading and writing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


@contextmanager
def replace_durably(
    path: str | os.PathLike[str],
    *,
    durable: bool = True,
    adopted: tuple[Path, int] | None = None,
) -> Iterator[int]:
    """Yield the descriptor of a temporary file that becomes `path` when the block ends well.

    The missing folders of `path` are made. On any error, an interrupt included, the temporary file
    is removed and `path` stays as it was. `durable=False` leaves out both fsyncs; the rename is
    atomic all the same. `adopted` is a temporary file beside `path` and its descriptor to take
    instead of a new one; it is closed too.

    Raises:
        OSError: the folder is not writable, the disk is full, ...; names the final path.
    """
    target = Path(os.path.abspath(path))
    temporary = temporary_path(target) if adopted is None else adopted[0]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = create_exclusive(temporary) if adopted is None else adopted[1]
        try:
            try:
                if target.is_dir():
                    raise IsADirectoryError(21, "expected a file name, got a folder", str(target))
                yield descriptor
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(
            error.errno, f"could not write {str(target)!r}: {reason}; the file was left as it was"
        ) from error
    if durable:
        sync_folder(target.parent)


def write_text_durably(path: str | os.PathLike[str], text: str) -> None:
    """Replace `path` by a small UTF-8 text file."""
    with replace_durably(path) as descriptor:
        os.write(descriptor, text.encode("utf-8"))


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Delete temporary files that killed processes of this host left in `folder`; return them."""
    removed = []
    host = socket.gethostname().replace("+", "_") or "localhost"
    for entry in sorted(Path(folder).glob(".*.tmp")):
        match = _TEMPORARY.match(entry.name)
        if (
            match
            and match["name"]
            and match["host"].endswith(host)
            and not _alive(int(match["pid"]))
        ):
            with suppress(OSError):
                entry.unlink()
                removed.append(entry)
    return removed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
