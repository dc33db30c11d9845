"""Passes over a dataloader that can begin in the middle without loading what was seen before."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any

import torch

from fasttrain.core import dist
from fasttrain.core.batch_order import (
    Tail,
    behind_batches,
    behind_samples,
    can_skip,
    end_persistent_workers,
    generators_of,
    set_sampler_epoch,
    with_order,
)
from fasttrain.core.checkpoint.rng import collect_rng_state, restore_rng_state
from fasttrain.core.resume_point import DataShape, ResumePoint, resume_point
from fasttrain.core.worker_seed import BatchSeededInit, mix

__all__ = ["Batches", "Tail", "generators_of", "set_sampler_epoch", "with_order"]

_logger = logging.getLogger("fasttrain.batches")


class Batches:
    """The passes over one dataloader, and where the running one stands.

    What a pass yields is fixed by the random state at its start (samplers draw their order from
    it, workers their seed) and by the number of samples consumed. That is the position; batches
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
        self._start_samples: int | None = None
        self._start_iter = 0
        self._rng_at_start: dict[str, Any] = {}
        self._generators_at_start: list[torch.Tensor] = []
        self._target: dict[str, Any] | None = None
        self._live: Generator[Any, None, None] | None = None
        self._with_workers: Any = None

    def begin(self, loader: Any, iter_: int, roll_over: bool = False) -> Iterator[Any]:
        """Start the next pass, at the sought position if there is one.

        Args:
            loader: any iterable; only a plain DataLoader over a map-style dataset skips without
                loading.
            iter_: number of the iteration that gets the first batch.
            roll_over: a position past the end of the pass goes on into the following passes.
        """
        target, self._target = self._target, None
        point = ResumePoint(0) if target is None else self._point(target, loader)
        if target is None or not (point.batches or point.samples):
            self.skipped = 0
            self._rng_at_start = collect_rng_state()
            self._generators_at_start = [g.get_state() for g in generators_of(loader)]
            iterator = self._whole_pass(loader, iter_)
        else:
            iterator = self._begin_at(target, point, loader, iter_, roll_over)
        self.running = True
        self.failed_while_fetching = False
        self._first_iter = iter_ - self.skipped
        self._start_iter, self._start_samples = iter_, self._samples_at_start(loader, point)
        self._live = self._run(iterator, iter_)
        return self._live

    def position(self, loader: Any, iter_: int) -> dict[str, Any]:
        """Where the passes stand after `iter_` iterations, for `seek` in another process."""
        if self._target is not None:  # nothing was drawn since
            return dict(self._target)
        consumed = iter_ - self._first_iter if self.running else 0
        state: dict[str, Any] = {"passes": self.passes, "consumed": consumed}
        if consumed <= 0 and not (self.running and self._start_samples):
            return state
        shape = DataShape.of(loader)
        state["shape"] = shape.plain()
        if self._start_samples is not None and shape.batch_size is not None:
            done = (iter_ - self._start_iter) * shape.batch_size
            state["samples"] = self._start_samples + done
        if hasattr(loader, "state_dict"):
            state["loader"] = loader.state_dict()
        state["rng"] = self._rng_at_start
        state["generators"] = self._generators_at_start
        return state

    def seek(self, position: dict[str, Any]) -> None:
        """Let the next pass begin at `position`."""
        self.passes = int(position.get("passes", 0))
        is_midway = position.get("consumed") or position.get("samples")
        self._target = dict(position) if is_midway else None

    def close(self) -> None:
        """Let the running pass go, and with it its workers.

        Workers that are left to the garbage collector may take seconds to be ended.
        """
        if self._live is not None:
            self._live.close()
            self._live = None
        end_persistent_workers(self._with_workers)
        self._with_workers = None

    def next_pass(self, loader: Any) -> None:
        """Count a finished pass and let the sampler shuffle anew."""
        self.passes += 1
        set_sampler_epoch(loader, self.passes)

    def _point(self, target: dict[str, Any], loader: Any) -> ResumePoint:
        point = resume_point(target, loader)
        if point.note and dist.rank() == 0:
            _logger.log(logging.WARNING if point.is_warning else logging.INFO, point.note)
        return point

    def _samples_at_start(self, loader: Any, point: ResumePoint) -> int | None:
        """How many samples of the pass are over as it begins; None when nobody knows."""
        if point.samples is not None:
            return point.samples
        batch_size = DataShape.of(loader).batch_size if can_skip(loader) else None
        return None if batch_size is None else self.skipped * batch_size

    def _whole_pass(self, loader: Any, iter_: int) -> Iterator[Any]:
        """Iterate over all of `loader`.

        Workers that persist have their seed drawn once in a training. A resumed run starts them
        once more, which must leave no trace; what they draw for a batch depends on the pass.
        """
        if not getattr(loader, "persistent_workers", False):
            return iter(loader)
        self._seed_persistent(loader.worker_init_fn, iter_, 0)
        is_restart = iter_ > 0 and self._with_workers is not loader
        self._with_workers = loader
        if not is_restart:
            return iter(loader)
        generator, loader.generator = loader.generator, torch.Generator()
        try:
            return iter(loader)
        finally:
            loader.generator = generator

    def _seed_persistent(self, init: Any, first_iter: int, first_batch: int) -> None:
        if isinstance(init, BatchSeededInit):
            digest = hashlib.blake2b(digest_size=8)
            for state in (self._rng_at_start["torch"], *self._generators_at_start):
                digest.update(state.cpu().numpy().tobytes())
            init.begin_pass(mix(int.from_bytes(digest.digest(), "little"), first_iter), first_batch)

    def _begin_at(
        self,
        target: dict[str, Any],
        point: ResumePoint,
        loader: Any,
        iter_: int,
        roll_over: bool,
    ) -> Iterator[Any]:
        now = collect_rng_state()
        self._rng_at_start = target.get("rng") or now
        self._rng_at_start = {k: v for k, v in self._rng_at_start.items() if k != "cuda"}
        restore_rng_state(self._rng_at_start)
        saved = target.get("generators") or []
        for generator, state in zip(generators_of(loader), saved, strict=False):
            generator.set_state(state)
        self._generators_at_start = [g.get_state() for g in generators_of(loader)]
        self.skipped = point.batches
        if "loader" in target and hasattr(loader, "load_state_dict") and not point.note:
            loader.load_state_dict(target["loader"])
            iterator: Iterator[Any] = iter(loader)
        elif can_skip(loader):
            iterator = self._tail_pass(point, loader, iter_, roll_over)
        else:
            iterator = self._replay(loader, roll_over)
        restore_rng_state(now)
        return iterator

    def _tail_pass(
        self, point: ResumePoint, loader: Any, iter_: int, roll_over: bool
    ) -> Iterator[Any]:
        """Iterate over `loader` behind a point, without loading what is before it."""
        first_iter, persist = iter_ - point.batches, getattr(loader, "persistent_workers", False)
        if persist:
            self._seed_persistent(loader.worker_init_fn, first_iter, point.batches)
        if point.samples is not None:
            rest, tail = behind_samples(loader, point.samples, point.batches)
        else:
            next_pass = (lambda: self.next_pass(loader)) if roll_over else None
            rest, tail = behind_batches(loader, point.batches, next_pass)
        if persist and first_iter > 0:
            rest.generator = torch.Generator()  # see `_whole_pass`
        iterator: Iterator[Any] = iter(rest)
        tail.prime()  # while the random state of the pass's start is in place
        if point.samples is None:
            self.skipped = tail.skipped_in_pass
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
