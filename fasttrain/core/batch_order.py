"""The order of a dataloader's batches from some place on, and what that order depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from fasttrain.core.worker_seed import starting_at


class Tail:
    """The items of a sampler behind the first `skip`; iterated once.

    Args:
        roll_over: called when the sampler ends before `skip` items; then it is iterated anew.
    """

    def __init__(self, inner: Any, skip: int, roll_over: Callable[[], None] | None = None) -> None:
        self.inner = inner
        self.skip = skip
        self.roll_over = roll_over
        self.skipped_in_pass = skip
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.prime())

    def __len__(self) -> int:
        return max(len(self.inner) - self.skipped_in_pass, 0)

    def prime(self) -> Iterator[Any]:
        """Start the sampler, on the first call, and step over what is to be skipped."""
        if self._iterator is not None:
            return self._iterator
        remaining = self.skip
        while True:
            self._iterator = iter(self.inner)
            seen = sum(1 for _ in islice(self._iterator, remaining))
            if seen == remaining or self.roll_over is None or not seen:
                self.skipped_in_pass = seen
                return self._iterator
            remaining -= seen
            self.roll_over()


def can_skip(loader: Any) -> bool:
    """Whether the loader is a plain one over a map-style dataset, which `with_order` imitates."""
    return type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset)


def skips_samples(loader: Any) -> bool:
    """Whether its batches are runs of the sampler's samples, which can then be skipped."""
    return can_skip(loader) and type(loader.batch_sampler) is BatchSampler


def sampler_of(loader: Any) -> Any:
    """What chooses the samples, inside a batch sampler too; None when the loader does not tell."""
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    return getattr(loader, "sampler", None) if inner is None else inner


def behind_samples(loader: DataLoader[Any], samples: int, first_batch: int) -> tuple[Any, Tail]:
    """A dataloader like `loader` without the first `samples`; its first batch has the number told.

    The sampler starts no sooner than the tail that is returned too is primed.
    """
    plain = loader.batch_sampler
    assert isinstance(plain, BatchSampler)
    tail = Tail(plain.sampler, samples)
    order = BatchSampler(tail, plain.batch_size, plain.drop_last)  # type: ignore[arg-type]
    return with_order(loader, order, first_batch), tail


def behind_batches(
    loader: DataLoader[Any], batches: int, roll_over: Callable[[], None] | None
) -> tuple[Any, Tail]:
    """A dataloader like `loader` without the first `batches`; see `Tail` for `roll_over`."""
    inner = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    tail = Tail(inner, batches, roll_over)
    return with_order(loader, tail, batches), tail


def with_order(loader: DataLoader[Any], order: Any, first_batch: int) -> DataLoader[Any]:
    """A dataloader like `loader` whose batches (or samples, when it has no batches) are `order`.

    Its workers live for one pass, also when those of `loader` persist.
    """
    batched = loader.batch_sampler is not None
    newer = {"in_order": loader.in_order} if hasattr(loader, "in_order") else {}
    return DataLoader(
        loader.dataset,
        batch_size=1 if batched else None,
        sampler=None if batched else order,
        batch_sampler=order if batched else None,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=starting_at(loader.worker_init_fn, first_batch),
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        **newer,  # type: ignore[arg-type]
    )


def end_persistent_workers(loader: Any) -> None:
    """End a loader's workers that persist; its next pass starts new ones."""
    shutdown = getattr(getattr(loader, "_iterator", None), "_shutdown_workers", None)
    if shutdown is not None:
        shutdown()
        loader._iterator = None


def generators_of(loader: Any) -> list[torch.Generator]:
    """The random generators that a dataloader and its sampler have of their own."""
    found: list[torch.Generator] = []
    for owner in (loader, getattr(loader, "sampler", None), sampler_of(loader)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator) and generator not in found:
            found.append(generator)
    return found


def set_sampler_epoch(loader: Any, epoch: int) -> None:
    """Tell the sampler (or the batch sampler's sampler) which epoch's order to give, if it asks."""
    candidates = (
        getattr(loader, "sampler", None),
        getattr(getattr(loader, "batch_sampler", None), "sampler", None),
    )
    for sampler in candidates:
        set_epoch = getattr(sampler, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
            return
