"""A loader's batches without end: started again, in the next epoch's order, when they are out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def endless_batches(loader: Iterable[Any], epoch: int = 0) -> Iterator[Any]:
    """Batch after batch, as long as the loader yields anything.

    Args:
        loader: anything iterable; its sampler's `set_epoch`, where there is one, is told the epoch.
        epoch: the first epoch.
    Raises:
        ValueError: the loader yields nothing.
    """
    while True:
        set_epoch = getattr(getattr(loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        is_empty = True
        for batch in loader:
            is_empty = False
            yield batch
        if is_empty:
            raise ValueError(
                "the data loader is empty: expected at least one batch; check the dataset's "
                "length, and batch_size with drop_last=True"
            )
        epoch += 1
