"""Checkpoint files of runs: read restricted, saved whole, found again in a work folder."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from fasttrain.core.checkpoint import (
    PickledObject,
    Writer,
    damage,
    is_url,
    load,
    local_copy_name,
    newest_intact,
    place_of,
    read_pointer,
    save,
)
from fasttrain.hooks.checkpoint_folder import storage_options
from fasttrain.logging import print_log


class PickledHistory(PickledObject):
    """A pickled `HistoryBuffer` of mmengine: its two arrays become the buffer's plain state."""

    __slots__ = ()

    def plain(self) -> dict[str, Any]:
        values = np.asarray(self.attributes["_log_history"])
        counts = np.asarray(self.attributes["_count_history"])
        return {
            "values": torch.from_numpy(values.astype(np.float64)),
            "counts": torch.from_numpy(counts.astype(np.float64)),
            "total": len(values),
            "max_length": int(self.attributes.get("max_length", 1_000_000)),
            "integral": values.dtype.kind in "biu",
        }


PICKLED_CLASSES: dict[str, type[PickledObject]] = {
    "mmengine.logging.history_buffer.HistoryBuffer": PickledHistory,
    "fasttrain.logging.history_buffer.HistoryBuffer": PickledHistory,
}


def read_checkpoint(
    filename: str | os.PathLike[str], map_location: Any = None, *, weights_only: bool = True
) -> Any:
    """Read a checkpoint file without running code; `weights_only=False` unpickles freely.

    Tensors keep the device that the file tells (`map_location=None`) as with `torch.load`. A
    function without `weights_only` that a test put in the place of `torch.load` is called instead.
    """
    if _is_strange(torch.load):
        return torch.load(filename, map_location=map_location)
    return load(filename, map_location, weights_only=weights_only, classes=PICKLED_CLASSES)


def _is_strange(load_function: Callable[..., Any]) -> bool:
    """Whether a function that is no reader of files stands in the place of `torch.load`."""
    if load_function is torch.serialization.load:
        return False
    parameters = inspect.signature(load_function).parameters.values()
    return not any(p.name == "weights_only" or p.kind is p.VAR_KEYWORD for p in parameters)


def save_checkpoint(
    checkpoint: dict[str, Any],
    filename: str | os.PathLike[str],
    file_client_args: dict[str, Any] | None = None,
    backend_args: dict[str, Any] | None = None,
    *,
    writer: Writer | None = None,
    on_saved: Callable[[], None] = lambda: None,
    updated_by: Iterable[Any] = (),
) -> None:
    """Save a checkpoint to a path or a URL; a file under the final name is always whole.

    Args:
        checkpoint: what to save.
        filename: a path or a URL.
        file_client_args: old name of `backend_args`.
        backend_args: options of fsspec's file system.
        writer: saves in the background: this returns once the checkpoint may change again.
        on_saved: called once the file is durable; in the writer's thread if there is one.
        updated_by: the optimizers whose steps change the checkpoint's tensors.

    Raises:
        TypeError: an entry has no plain form; names it.
        OSError: the file could not be written; names it.
    """
    options = storage_options(file_client_args, backend_args)
    name = os.fspath(filename)
    if name.startswith("pavi://"):
        if options is not None:
            raise ValueError(
                '"file_client_args" or "backend_args" should be "None" '
                'if filename starts with "pavi://"'
            )
        raise ImportError(no_pavi(name))
    target = local_copy_name(name) if is_url(name) else name

    def finish() -> None:
        if is_url(name):
            place_of(name, options).put_file(target, name)
            os.remove(target)
        on_saved()

    if writer is not None:
        writer.submit(checkpoint, target, on_saved=finish, updated_by=updated_by)
        return
    save(checkpoint, target)
    finish()


def no_pavi(name: str) -> str:
    """The error text for a service that is closed."""
    return (
        f"Please install pavi to load checkpoint from modelcloud. The service behind {name!r} "
        "is not public; give a path or a URL"
    )


def find_intact_checkpoint(path: str) -> str | None:
    """The checkpoint to resume a work folder from: the newest that is whole, None without one.

    The pointer file's comes first. When it is damaged or gone, the other periodic checkpoints
    beside it follow, newest first; each one passed over is named in a warning.
    """
    pointed = read_pointer(path)
    if pointed is not None and is_url(pointed):
        return pointed
    names = r"(epoch|iter)_\d+\.pth"
    if pointed is not None:
        names += "|" + re.sub(r"(?:\\?\d)+", r"\\d+", re.escape(os.path.basename(pointed)))
    folder = path if pointed is None else os.path.dirname(pointed)
    found = newest_intact(
        folder, damage, pointed=pointed, accepts=lambda name: re.fullmatch(names, name) is not None
    )
    if found is None:
        print_log("Did not find last_checkpoint to be resumed.", logger="current")
        return None
    return str(found)


def find_latest_checkpoint(path: str) -> str | None:
    """The newest checkpoint of a work folder by its pointer file, None when there is none."""
    found = read_pointer(path)
    if found is None:
        print_log("Did not find last_checkpoint to be resumed.", logger="current")
    return found
