"""Files of a run's logs: results as JSON, copies elsewhere."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fasttrain.core.checkpoint import is_url
from fasttrain.dist import master_only

SUFFIX_TYPE = Sequence[str] | str


def is_suffix(value: Any) -> bool:
    """Whether `value` is a file ending or a sequence of them."""
    return isinstance(value, str) or (
        isinstance(value, Sequence) and all(isinstance(entry, str) for entry in value)
    )


def plain(value: Any) -> Any:
    """`value` with arrays and tensors in it as numbers and lists."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return type(value)((key, plain(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


@master_only
def write_json(tags: dict[str, Any], path: str) -> None:
    """Write tags into a file of their own; its folder is made."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(tags, file)


def copy_logs(
    log_dir: Path, out_dir: str, suffix: SUFFIX_TYPE, place: Any
) -> list[tuple[Path, str]]:
    """Copy the files with one of the endings, keeping their folders.

    Args:
        place: what `out_dir` belongs to, as `place_of` tells.
    Returns:
        each file and where its copy is.
    """
    endings = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    copied = []
    for path in sorted(log_dir.rglob("*")):
        if not (path.is_file() and path.name.endswith(endings)):
            continue
        target = place.join_path(out_dir, path.relative_to(log_dir).as_posix())
        if is_url(target):
            place.put_file(str(path), target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(path, target)
        copied.append((path, target))
    return copied


def remove_logs(logger: Any, copied: list[tuple[Path, str]]) -> None:
    """Say so, close the logger's files, and remove the files that were copied."""
    for path, target in copied:
        logger.info(
            f"{path} was removed due to the `self.keep_local=False`. "
            f"You can check the running logs in {target}"
        )
    for handler in list(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            handler.close()
            logger.removeHandler(handler)
    for path, _ in copied:
        path.unlink()
