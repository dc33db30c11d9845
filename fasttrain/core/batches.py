"""Passes over a dataloader that can begin in the middle without loading what was seen before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from fasttrain.core.checkpoint.rng import collect_rng_state, restore_rng_state
from fasttrain.core.worker_seed import starting_at


class Batches:
    """The passes over one dataloader, and where the running one stands.

    What a pass yields is fixed by the random state at its start (samplers draw their order from
    it, workers their seed) and by the number of batches consumed. That is the position; batches
    that workers fetched ahead do not count. A dataloader with a `state_dict` of its own (such as
    torchdata's StatefulDataLoader) is asked for it instead.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.skipped = 0
        self.next_iter = 0
        self.running = False
        self.failed_while_fetching = False
        self._first_iter = 0
        self._rng_at_start: dict[str, Any] = {}
        self._generators_at_start: list[torch.Tensor] = []
        self._target: dict[str, Any] | None = None
        self._live: Generator[Any, None, None] | None = None

    def begin(self, loader: Any, iter_: int, roll_over: bool = False) -> Iterator[Any]:
        """Start the next pass, at the sought position if there is one.

        Args:
            loader: any iterable; only a plain DataLoader over a map-style dataset skips without
                loading.
            iter_: number of the iteration that gets the first batch.
            roll_over: a position past the end of the pass goes on into the following passes.
        """
        target, self._target = self._target, None
        if target is None:
            self.skipped = 0
            self._rng_at_start = collect_rng_state()
            self._generators_at_start = [g.get_state() for g in generators_of(loader)]
            iterator = iter(loader)
        else:
            iterator = self._begin_at(target, loader, roll_over)
        self.running = True
        self.failed_while_fetching = False
        self._first_iter = iter_ - self.skipped
        self._live = self._run(iterator, iter_)
        return self._live

    def position(self, loader: Any, iter_: int) -> dict[str, Any]:
        """Where the passes stand after `iter_` iterations, for `seek` in another process."""
        consumed = iter_ - self._first_iter if self.running else 0
        state: dict[str, Any] = {"passes": self.passes, "consumed": consumed}
        if consumed <= 0:
            return state
        if hasattr(loader, "state_dict"):
            state["loader"] = loader.state_dict()
        state["rng"] = self._rng_at_start
        state["generators"] = self._generators_at_start
        return state

    def seek(self, position: dict[str, Any]) -> None:
        """Let the next pass begin at `position`."""
        self.passes = int(position.get("passes", 0))
        self._target = dict(position) if position.get("consumed") else None

    def close(self) -> None:
        """Let the running pass go, and with it its workers.

        Workers that are left to the garbage collector may take seconds to be ended.
        """
        if self._live is not None:
            self._live.close()
            self._live = None

    def next_pass(self, loader: Any) -> None:
        """Count a finished pass and let the sampler shuffle anew."""
        self.passes += 1
        set_sampler_epoch(loader, self.passes)

    def _begin_at(self, target: dict[str, Any], loader: Any, roll_over: bool) -> Iterator[Any]:
        now = collect_rng_state()
        self._rng_at_start = target.get("rng") or now
        self._rng_at_start = {k: v for k, v in self._rng_at_start.items() if k != "cuda"}
        restore_rng_state(self._rng_at_start)
        saved = target.get("generators") or []
        for generator, state in zip(generators_of(loader), saved, strict=False):
            generator.set_state(state)
        self._generators_at_start = [g.get_state() for g in generators_of(loader)]
        self.skipped = int(target["consumed"])
        if "loader" in target and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(target["loader"])
            iterator: Iterator[Any] = iter(loader)
        elif type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset):
            tail = Tail(
                loader.sampler if loader.batch_sampler is None else loader.batch_sampler,
                self.skipped,
                (lambda: self.next_pass(loader)) if roll_over else None,
            )
            iterator = iter(with_order(loader, tail))
            tail.prime()  # while the random state of the pass's start is in place
            self.skipped = tail.skipped_in_pass
        else:
            iterator = self._replay(loader, roll_over)
        restore_rng_state(now)
        return iterator

    def _replay(self, loader: Any, roll_over: bool) -> Iterator[Any]:
        """Load and drop the batches seen before: the only way for an unknown kind of loader."""
        remaining = self.skipped
        while True:
            iterator: Iterator[Any] = iter(loader)
            seen = sum(1 for _ in islice(iterator, remaining))
            if seen == remaining or not roll_over or not seen:
                self.skipped = seen
                return iterator
            remaining -= seen
            self.next_pass(loader)

    def _run(self, iterator: Iterator[Any], iter_: int) -> Generator[Any, None, None]:
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                self.running = False
                self.next_iter = iter_
                return
            except BaseException:
                self.failed_while_fetching = True
                raise
            yield batch
            iter_ += 1


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


def with_order(loader: DataLoader[Any], order: Tail) -> DataLoader[Any]:
    """A dataloader like `loader` whose batches (or samples, when it has no batches) are `order`."""
    batched = loader.batch_sampler is not None
    return DataLoader(
        loader.dataset,
        batch_size=1 if batched else None,
        sampler=None if batched else order,  # type: ignore[arg-type]
        batch_sampler=order if batched else None,  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=starting_at(loader.worker_init_fn, order.skip),
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def generators_of(loader: Any) -> list[torch.Generator]:
    """The random generators that a dataloader and its sampler have of their own."""
    found: list[torch.Generator] = []
    for owner in (loader, getattr(loader, "sampler", None)):
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
