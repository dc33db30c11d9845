"""Write a state as one file of torch's zip format, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import UntypedStorage

from fasttrain import native
from fasttrain.core.checkpoint.durable import replace_durably
from fasttrain.core.checkpoint.skeleton import pickle_tree, rebuild_tree
from fasttrain.core.checkpoint.storages import StorageTable
from fasttrain.core.checkpoint.tree import plain_tree


@dataclass(frozen=True, slots=True)
class Plan:
    """A state taken apart: the plain tree of references and the storages that they name."""

    tree: Any
    storages: Sequence[UntypedStorage]

    @property
    def num_bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages)


def take_apart(state: Any) -> Plan:
    """Walk `state` once; later changes of its containers no longer matter, those of tensors do."""
    table = StorageTable()
    return Plan(plain_tree(state, table.add), table.storages)


def save(state: Any, path: str | os.PathLike[str], *, durable: bool = True) -> None:
    """Save `state` as `path` through a temporary file beside it, durable before it takes the name.

    The file opens with `torch.load(path, weights_only=True)`. On any error no file is left under
    the final name that was not there before.

    Raises:
        TypeError: an entry has no plain form (see `plain_tree`).
        OSError: the file could not be written; names it.
    """
    write(on_host(take_apart(state)), path, durable=durable)


def on_host(plan: Plan) -> Plan:
    """The plan with every storage in host memory; those that are there stay as they are."""
    return Plan(plan.tree, [_to_host(storage) for storage in plan.storages])


def write(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    crcs: Sequence[int] = (),
    durable: bool = True,
    gently: bool = False,
) -> None:
    """Write a plan whose storages are all in host memory.

    Args:
        crcs: the storages' CRC-32, when they are known already.
        gently: give way to whatever else wants the processor.
    """
    with replace_durably(path, durable=durable) as descriptor:
        if native.enabled():
            spans = [(storage.data_ptr(), storage.nbytes()) for storage in plan.storages]
            data = pickle_tree(plan.tree)
            native.module().checkpoint_write(
                descriptor, data, spans, list(crcs), num_threads(), gently
            )
            return
        _write_by_torch(rebuild_tree(plan.tree, _distinct(plan.storages)), descriptor)


def _write_by_torch(state: Any, descriptor: int) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        noted = _ErrorNote(file)
        try:
            torch.save(state, noted)  # type: ignore[arg-type]
        except RuntimeError as error:
            if noted.error is None:
                raise
            raise OSError(noted.error.errno, noted.error.strerror) from error


class _ErrorNote:
    """A file that notes why it could not be written to, since torch's zip writer hides it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def num_threads() -> int:
    """How many threads copy and write: memory and disk are busy with a few."""
    return max(1, min(8, os.cpu_count() or 1))


def _distinct(storages: Sequence[UntypedStorage]) -> list[UntypedStorage]:
    """The storages with those listed twice (seen as two dtypes) copied: torch refuses them."""
    seen: set[int] = set()
    distinct = []
    for storage in storages:
        distinct.append(storage.clone() if storage._cdata in seen else storage)  # type: ignore[no-untyped-call]
        seen.add(storage._cdata)
    return distinct


def _to_host(storage: UntypedStorage) -> UntypedStorage:
    return storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]
