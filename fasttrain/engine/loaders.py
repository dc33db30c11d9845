"""Data loaders of a config: random and without a rest for training, whole and in order else."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, Sampler

from fasttrain.engine import comm
from fasttrain.engine.registries import DATASETS_REGISTRY

logger = logging.getLogger("fasttrain.engine")


def as_list(batch: list[Any]) -> list[Any]:
    """The trivial collate function: the model's `preprocess_batch` puts samples together."""
    return batch


class Share(Sampler[int]):
    """This process's indices, every world-size-th one: none twice, unlike DistributedSampler's."""

    def __init__(self, num_samples: int) -> None:
        self._indices = range(comm.get_rank(), num_samples, comm.get_world_size())

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def build_loader(
    cfg: Any, name: str, stage: str, *, one_by_one: bool = False
) -> DataLoader[Any] | None:
    """The loader of the data set registered as `name`, None without a name.

    Args:
        stage: "train" (what comes behind a semicolon does not count): shuffled, shared out to the
            processes, without an incomplete last batch. Any other: in order, and all of it in every
            process.
        one_by_one: for stages other than train: batches of one sample, shared out.
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
    elif one_by_one:
        sampler, batch_size = Share(len(dataset)), 1
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
