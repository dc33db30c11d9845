"""A folder of checkpoints: the pointer file, retention, and the newest file that is intact."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fasttrain.core.checkpoint.durable import write_text_durably

POINTER = "last_checkpoint"

_logger = logging.getLogger("fasttrain.checkpoint")


def write_pointer(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> None:
    """Let the pointer file name the newest checkpoint; call it once that file is durable."""
    write_text_durably(Path(folder) / POINTER, os.fspath(name))


def read_pointer(folder: str | os.PathLike[str]) -> str | None:
    """The checkpoint that the pointer file names, None without one.

    A name whose file is gone although the folder holds a file of that name (the folder was moved)
    is answered by the path inside the folder.
    """
    try:
        text = (Path(folder) / POINTER).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not text:
        return None
    inside = Path(folder) / Path(text).name
    if not os.path.exists(text) and inside.exists():
        return str(inside)
    return text


class Retention:
    """Keeps the newest `max_keep` checkpoints: tells which ones may go, oldest first.

    Args:
        max_keep: 0 or less keeps all.
        kept: names known from an earlier run, oldest first.
    """

    def __init__(self, max_keep: int, kept: Iterable[str] = ()) -> None:
        self.max_keep = max_keep
        self.kept: list[str] = list(kept)

    def add(self, name: str) -> list[str]:
        """Note a durable checkpoint and return those that are to be deleted."""
        if name in self.kept:
            self.kept.remove(name)
        self.kept.append(name)
        surplus = len(self.kept) - self.max_keep if self.max_keep > 0 else 0
        gone, self.kept = self.kept[:surplus], self.kept[surplus:]
        return gone


def checkpoint_files(folder: str | os.PathLike[str], suffix: str = ".pth") -> list[Path]:
    """The checkpoint files of a folder, newest first."""
    stamped = []
    for path in Path(folder).glob(f"*{suffix}"):
        with suppress(OSError):
            stamped.append((path.stat().st_mtime_ns, path.name, path))
    return [path for _, _, path in sorted(stamped, reverse=True)]


def newest_intact(
    folder: str | os.PathLike[str],
    damage: Callable[[Path], str | None],
    *,
    pointed: str | None = None,
    accepts: Callable[[str], bool] = lambda name: True,
    suffix: str = ".pth",
) -> Path | None:
    """The checkpoint to resume from: `pointed` when it is intact, else the newest that is.

    Args:
        damage: tells what is wrong with a file, None when it is intact. Each damaged file that is
            passed over is named in a warning.
        pointed: what the pointer file names.
        accepts: whether a file of this name may be resumed from at all.
    """
    first = [Path(pointed)] if pointed is not None else []
    others = [path for path in checkpoint_files(folder, suffix) if accepts(path.name)]
    candidates = first + [path for path in others if path not in first]
    for path in candidates:
        if not path.is_file():
            _logger.warning("checkpoint %s, which the pointer file names, does not exist", path)
            continue
        found = damage(path)
        if found is None:
            return path
        _logger.warning("checkpoint %s is damaged and passed over: %s", path, found)
    return None
