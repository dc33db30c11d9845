"""Publish a checkpoint: a copy with a few entries whose name ends in the file's own hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from contextlib import suppress

from fasttrain.core.checkpoint import Place, is_url, load, local_copy_name, save
from fasttrain.logging import print_log


def publish(place: Place, path: str, keys: Collection[str]) -> str:
    """Save the entries `keys` of the checkpoint at `path` beside it; return the copy's path."""
    stem = os.path.splitext(path)[0]
    local = local_copy_name(".pth") if is_url(path) else f"{stem}.publishing"
    try:
        if is_url(path):
            place.get_file(path, local)
        checkpoint = load(local if is_url(path) else path)
        removed = [key for key in checkpoint if key not in keys]
        if removed:
            print_log(
                f"Key {removed} will be removed because they are not found in published_keys. "
                f"If you want to keep them, please set `{removed}` in published_keys",
                logger="current",
            )
        save({key: checkpoint[key] for key in checkpoint if key in keys}, local)
        final = f"{stem}-{_digest(local)[:8]}.pth"
        place.put_file(local, final)
    finally:
        with suppress(FileNotFoundError):
            os.remove(local)
    print_log(f"The checkpoint ({path}) is published to {final}.", logger="current")
    return final


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
