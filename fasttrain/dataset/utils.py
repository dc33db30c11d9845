"""What a DataLoader is given: the start of its workers, and how samples become a batch."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate as torch_default_collate

from fasttrain.core.env import MAX_NUMPY_SEED, worker_seed
from fasttrain.registry import FUNCTIONS

COLLATE_FUNCTIONS = FUNCTIONS


def worker_init_fn(
    worker_id: int,
    num_workers: int,
    rank: int,
    seed: int,
    disable_subprocess_warning: bool = False,
) -> None:
    """Seed a worker process by its number, its process's rank and the run's seed.

    With `disable_subprocess_warning` only worker 0 goes on to show warnings.
    """
    own_seed = worker_seed(seed, worker_id=worker_id, num_workers=num_workers, rank=rank)
    np.random.seed(own_seed % MAX_NUMPY_SEED)
    random.seed(own_seed)
    torch.manual_seed(own_seed)
    if disable_subprocess_warning and worker_id != 0:
        warnings.simplefilter("ignore")


@FUNCTIONS.register_module()
def pseudo_collate(data_batch: Sequence) -> Any:
    """Join samples field by field into lists; tensors are not stacked."""
    return _collate(data_batch, pseudo_collate, lambda batch: batch)


@FUNCTIONS.register_module()
def default_collate(data_batch: Sequence) -> Any:
    """Join samples field by field; stack tensors, arrays and numbers to one tensor each."""
    return _collate(data_batch, default_collate, torch_default_collate)


def _collate(batch: Any, again: Callable[[Any], Any], leaf: Callable[[Any], Any]) -> Any:
    """One level of a batch: containers by `again`, text and data elements as they are."""
    first = batch[0]
    if isinstance(first, str | bytes) or hasattr(first, "to_dict"):  # a data element
        return batch
    if isinstance(first, Mapping):
        kind: Any = type(first)
        return kind({key: again([sample[key] for sample in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):  # a namedtuple
        return type(first)(*[again(field) for field in zip(*batch, strict=False)])
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each data_itement in list of batch should be of equal size")
        fields = [again(field) for field in zip(*batch, strict=True)]
        return fields if isinstance(first, tuple) else _like(first, fields)
    return leaf(batch)


def _like(example: Sequence, items: list) -> Sequence:
    """`items` in the type of `example`, or the list where that type does not take one."""
    try:
        return type(example)(items)  # type: ignore[call-arg]
    except TypeError:
        return items
