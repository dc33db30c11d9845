"""The folder that a run writes its checkpoints to: locked, pointed at, kept within a number."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from logging import WARNING, Logger
from pathlib import Path
from typing import Any

from fasttrain.core.checkpoint import (
    POINTER,
    FolderLock,
    Place,
    is_url,
    place_of,
    remove_leftovers,
)
from fasttrain.dist import is_main_process
from fasttrain.logging import print_log


class CheckpointFolder:
    """One run's folder or URL of checkpoints; rank 0 holds its lock until `release`.

    Args:
        work_dir: of the run; the pointer file stands there.
        out_dir: parent of the folder, which has the work folder's name; None is the work folder.
        options: of fsspec's file system.
        logger: told about what killed runs left.

    Raises:
        RuntimeError: another process writes there.
    """

    def __init__(
        self,
        work_dir: str,
        out_dir: str | Path | None,
        options: Mapping[str, Any] | None,
        logger: Logger,
    ) -> None:
        self.options = options
        self.pointer = os.path.join(work_dir, POINTER)
        self.path = work_dir
        if out_dir is not None:
            parent = str(out_dir)
            name = os.path.basename(work_dir.rstrip("/"))
            self.path = place_of(parent, options).join_path(parent, name)
        self.place: Place = place_of(self.path, options)
        self._lock: FolderLock | None = None
        if is_main_process() and not is_url(self.path):
            self._lock = FolderLock(self.path)
            for path in remove_leftovers(self.path):
                logger.warning(f"Removed {path}, left by a save that was killed")

    def file(self, name: str) -> str:
        """The path of a file in it."""
        return self.place.join_path(self.path, name)

    def point_at(self, path: str) -> None:
        """Let the pointer file name the newest checkpoint."""
        place_of(self.pointer).put_text(path, self.pointer)

    def holds(self, path: str) -> bool:
        """Whether there is a file of this path, wherever it points to."""
        return place_of(path, self.options).isfile(path)

    def remove(self, path: str) -> None:
        """Delete a checkpoint, which may be a folder; one that is gone is no error."""
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            place_of(path, self.options).remove(path)

    def release(self) -> None:
        """Let other runs in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def newest_steps(known: Sequence[int], limit: int) -> tuple[deque[int], list[int]]:
    """The newest `limit` epochs or iterations of those known, and the others, oldest first."""
    surplus = max(len(known) - limit, 0)
    return deque(known[surplus:], limit), list(known[:surplus])


def admit_step(kept: deque[int], step: int) -> int | None:
    """Add an epoch or iteration to those kept; the oldest one when it has to go."""
    if kept and kept[-1] == step:
        return None
    gone = kept[0] if len(kept) == kept.maxlen else None
    kept.append(step)
    return gone


def storage_options(
    file_client_args: dict[str, Any] | None, backend_args: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The one of the two arguments that is set; the first is the old name of the second.

    Raises:
        ValueError: both are given.
    """
    if file_client_args is None:
        return backend_args
    print_log(
        '"file_client_args" will be deprecated in future. Please use "backend_args" instead',
        logger="current",
        level=WARNING,
    )
    if backend_args is not None:
        raise ValueError('"file_client_args" and "backend_args" cannot be set at the same time.')
    return file_client_args
