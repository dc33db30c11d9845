"""Downloading checkpoints."""

from __future__ import annotations

from typing import Any

import torch


def load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> dict[str, Any]:
    """Load a checkpoint from a URL; the file is kept and downloaded once.

    Args:
        url: of the file.
        model_dir: where the file is kept; the checkpoints folder of torch.hub when None.
        map_location: as in `torch.load`.
        progress: show how the download goes.
        check_hash: compare the file with the hash in its name, `name-<sha256>.ext`.
        file_name: the name to keep the file under; the URL's when None.
        weights_only: False runs code that the file may hold; only for files you trust.
    """
    return torch.hub.load_state_dict_from_url(
        url, model_dir, map_location, progress, check_hash, file_name, weights_only
    )
