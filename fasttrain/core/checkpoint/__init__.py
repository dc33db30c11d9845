"""Checkpoints: plain trees in torch's file format, written durably, opened without running code."""

from fasttrain.core.checkpoint.container import Plan, on_host, save, take_apart, write
from fasttrain.core.checkpoint.durable import (
    remove_leftovers,
    replace_durably,
    write_text_durably,
)
from fasttrain.core.checkpoint.folder import (
    POINTER,
    Retention,
    checkpoint_files,
    newest_intact,
    read_pointer,
    write_pointer,
)
from fasttrain.core.checkpoint.lock import FolderLock
from fasttrain.core.checkpoint.remote import Place, is_url, local_copy_name, place_of
from fasttrain.core.checkpoint.restricted import CheckpointError, UnsafeCheckpointError, load
from fasttrain.core.checkpoint.rng import collect_rng_state, restore_rng_state
from fasttrain.core.checkpoint.stand_ins import PickledObject
from fasttrain.core.checkpoint.tree import plain_tree
from fasttrain.core.checkpoint.verify import damage
from fasttrain.core.checkpoint.watch import order_after_copies
from fasttrain.core.checkpoint.writer import Writer

__all__ = [
    "POINTER",
    "CheckpointError",
    "FolderLock",
    "PickledObject",
    "Place",
    "Plan",
    "Retention",
    "UnsafeCheckpointError",
    "Writer",
    "checkpoint_files",
    "collect_rng_state",
    "damage",
    "is_url",
    "load",
    "local_copy_name",
    "newest_intact",
    "on_host",
    "order_after_copies",
    "place_of",
    "plain_tree",
    "read_pointer",
    "remove_leftovers",
    "replace_durably",
    "restore_rng_state",
    "save",
    "take_apart",
    "write",
    "write_pointer",
    "write_text_durably",
]
