"""Data loaders of a config: random and without a rest for training, whole and in order else."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler

from fasttrain.engine import comm
from fasttrain.engine.registries import DATASETS_REGISTRY

logger = logging.getLogger("fasttrain.engine")


def as_list(batch: list[Any]) -> list[Any]:
    """The trivial collate function: the model's `preprocess_batch` puts samples together."""
    return batch


def build_loader(cfg: Any, name: str, stage: str) -> DataLoader[Any] | None:
    """The loader of the data set registered as `name`, None without a name.

    Raises:
        ValueError: a training set that has fewer samples than one batch.
    """
    if not name:
        return None
    dataset = DATASETS_REGISTRY.get(name)(cfg, stage)
    training = stage.split(";")[0] == "train"
    batch_size = cfg.DATALOADER.TRAIN_BATCH_SIZE if training else cfg.DATALOADER.TEST_BATCH_SIZE
    sampler: Any = None
    if training:
        several = comm.get_world_size() > 1
        sampler = DistributedSampler(dataset) if several else RandomSampler(dataset)
        if len(sampler) < batch_size:
            raise ValueError(
                f"the training set {name!r} has {len(sampler)} samples for this process, fewer "
                f"than one batch of {batch_size}: no batch would be left; lower "
                "DATALOADER.TRAIN_BATCH_SIZE"
            )
    workers = cfg.DATALOADER.NUM_WORKERS
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=training,
        collate_fn=as_list,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0 and training,
    )


def usable_device(wanted: str) -> torch.device:
    """The device that the config names, or the CPU, with a warning, where there is no GPU."""
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("MODEL.DEVICE is %r, but there is no GPU here: training on the CPU", wanted)
        return torch.device("cpu")
    if wanted == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    return torch.device(wanted)
