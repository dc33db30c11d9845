"""One writing process a folder: a second run in the same folder is refused, not mixed in."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

NAME = ".checkpoints.lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)


class FolderLock:
    """Holds the folder's lock until `release` or the end of the process.

    The lock belongs to the process: a further one in the same process succeeds, worker processes do
    not inherit it, and a killed process holds none. Where the file system has no locks, none is
    taken.

    Raises:
        RuntimeError: another process holds it; tells which one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder) / NAME
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take()
        except BaseException:
            self.release()
            raise

    def _take(self) -> None:
        if fcntl is None or self._descriptor is None:
            return
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _TAKEN:
                return
            holder = self._path.read_text(encoding="utf-8").strip() or "another process"
            raise RuntimeError(
                f"{self._path.parent} is in use: {holder} writes checkpoints there. Choose another "
                "work_dir, or end that run first"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(
            self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0
        )

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None
