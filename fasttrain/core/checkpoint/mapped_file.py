"""A file prepared in a memory file system: copying a state into it is writing it.

There the pages of a new file cost more than all else of a save. They are allocated and mapped
between two saves; a save is then one copy, a few headers and a rename.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from fasttrain import native
from fasttrain.core.checkpoint.container import Plan
from fasttrain.core.checkpoint.durable import create_exclusive, replace_durably, temporary_path
from fasttrain.core.checkpoint.skeleton import pickle_tree

_MIN_BYTES = 1 << 20  # smaller files gain nothing
_ROOM = 1 << 16  # bytes, and a 64th of the size, for a state that grows a little


def can_map(path: str | os.PathLike[str]) -> bool:
    """Whether files beside `path` can be prepared."""
    folder = str(Path(os.path.abspath(path)).parent)
    return native.enabled() and bool(native.module().checkpoint_is_memory_folder(folder))


class MappedFile:
    """A temporary file of `num_bytes` in a folder of a memory file system, mapped.

    What is done between two saves gives way to whatever else wants the processor.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, folder: Path, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._folder = folder
        self._path = temporary_path(folder / "next")
        self._descriptor = create_exclusive(self._path)
        self._unlink = weakref.finalize(self, _remove, self._path, os.getpid())
        self._data = b""
        self._sizes: Sequence[int] = ()
        self._crcs: Sequence[int] = ()
        try:
            self._address = native.module().checkpoint_map(self._descriptor, num_bytes)
        except BaseException:
            os.close(self._descriptor)
            self._unlink()
            raise

    @classmethod
    def like(cls, path: str | os.PathLike[str]) -> MappedFile:
        """A file with room for the next version of the checkpoint at `path`.

        Raises:
            OSError: there is no room for it, or the checkpoint is too small to gain from it.
        """
        size = os.path.getsize(path)
        if size < _MIN_BYTES:
            raise OSError(f"{size} bytes are too few to prepare a file for")
        return cls(Path(os.path.abspath(path)).parent, size + size // 64 + _ROOM)

    def take(self, plan: Plan, path: str) -> bool:
        """Copy the state into the file; False when it does not fit or belongs elsewhere."""
        if Path(os.path.abspath(path)).parent != self._folder:
            return False
        if any(storage.device.type != "cpu" for storage in plan.storages):
            return False
        module = native.module()
        data = pickle_tree(plan.tree)
        sizes = [storage.nbytes() for storage in plan.storages]
        num_bytes, offsets = module.checkpoint_layout(len(data), sizes)
        if num_bytes > self.num_bytes:
            return False
        spans = [(storage.data_ptr(), storage.nbytes()) for storage in plan.storages]
        targets = [self._address + offset for offset in offsets]
        self._crcs = module.checkpoint_copy(spans, targets, torch.get_num_threads())
        self._data, self._sizes = data, sizes
        return True

    def write(self, path: str, *, durable: bool) -> None:
        """Complete the file and let it take its name."""
        adopted = (self._path, self._descriptor)
        with replace_durably(path, durable=durable, adopted=adopted) as descriptor:
            native.module().checkpoint_write_around(descriptor, self._data, self._sizes, self._crcs)
        self._unlink.detach()

    def release(self) -> None:
        """Give the mapping back once the file is written (that takes longer than the write)."""
        native.module().checkpoint_unmap(self._address, self.num_bytes, True)

    def discard(self) -> None:
        """Remove the file unused."""
        native.module().checkpoint_unmap(self._address, self.num_bytes, False)
        os.close(self._descriptor)
        self._unlink()


def _remove(path: Path, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked process, such as a dataloader's worker: the file is its parent's
    with suppress(OSError):
        path.unlink()
