"""Small helpers of the runner: seeds, changing intervals, the batch size of a dataloader."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch.utils.data import DataLoader

from fasttrain.core.env import seed_everything
from fasttrain.dist import get_rank, sync_random_seed
from fasttrain.logging import print_log


def calc_dynamic_intervals(
    start_interval: int, dynamic_interval_list: list[tuple[int, int]] | None = None
) -> tuple[list[int], list[int]]:
    """Split `[(milestone, interval), ...]` into milestones and intervals, beginning at 0.

    >>> calc_dynamic_intervals(1, [(5, 2), (8, 4)])
    ([0, 5, 8], [1, 2, 4])
    """
    if dynamic_interval_list is None:
        return [0], [start_interval]
    assert isinstance(dynamic_interval_list, list) and all(
        isinstance(entry, tuple) for entry in dynamic_interval_list
    ), f"dynamic_intervals must be a list of (milestone, interval), got {dynamic_interval_list!r}"
    milestones = [0] + [entry[0] for entry in dynamic_interval_list]
    intervals = [start_interval] + [entry[1] for entry in dynamic_interval_list]
    return milestones, intervals


def set_random_seed(
    seed: int | None = None, deterministic: bool = False, diff_rank_seed: bool = False
) -> int:
    """Seed python, numpy and torch, and return the seed before the rank was added.

    Args:
        seed: None draws one and agrees on it with all ranks.
        deterministic: have torch use deterministic algorithms.
        diff_rank_seed: add the rank to the seed, so that ranks draw different numbers.
    """
    base = sync_random_seed() if seed is None else seed
    if deterministic and torch.backends.cudnn.benchmark:
        print_log(
            "torch.backends.cudnn.benchmark is going to be set as `False` to cause cuDNN to "
            "deterministically select an algorithm",
            logger="current",
            level=logging.INFO,
        )
    seed_everything(base + get_rank() if diff_rank_seed else base, deterministic=deterministic)
    return base


def _get_batch_size(dataloader: DataLoader | dict[str, Any]) -> int:
    """The number of samples per batch that a dataloader, or its dict, gives."""
    if isinstance(dataloader, DataLoader):
        if dataloader.batch_sampler is None:
            raise ValueError("the dataloader has no batch sampler, so its batch size is unknown")
        return dataloader.batch_sampler.batch_size  # type: ignore[attr-defined]
    if not isinstance(dataloader, dict):
        raise ValueError(
            f"dataloader should be a dict or a Dataloader instance, but got {type(dataloader)}"
        )
    if "batch_size" in dataloader:
        return dataloader["batch_size"]
    batch_sampler = dataloader.get("batch_sampler") or {}
    if "batch_size" in batch_sampler:
        return batch_sampler["batch_size"]
    raise ValueError("Please set batch_size in `Dataloader` or `batch_sampler`")
