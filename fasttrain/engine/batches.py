"""EndlessBatches: a loader's batches, started again with the next epoch's order when they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class EndlessBatches:
    """An iterator that never ends, as long as the loader yields anything.

    Args:
        loader: anything iterable; its sampler's `set_epoch`, where there is one, is told the epoch.
        epoch: the first epoch.

    Attributes:
        epoch: the running epoch.
    """

    def __init__(self, loader: Iterable[Any], epoch: int = 0) -> None:
        self.epoch = epoch
        self._loader = loader
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> EndlessBatches:
        return self

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            ValueError: the loader yields nothing.
        """
        if self._batches is None:
            self._batches = self._begin_epoch()
        try:
            return next(self._batches)
        except StopIteration:
            self.epoch += 1
            self._batches = self._begin_epoch()
        try:
            return next(self._batches)
        except StopIteration as e:
            raise ValueError(
                "the data loader is empty: expected at least one batch; check the dataset's "
                "length, and batch_size with drop_last=True"
            ) from e

    def _begin_epoch(self) -> Iterator[Any]:
        set_epoch = getattr(getattr(self._loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.epoch)
        return iter(self._loader)
