"""From a step's losses to the storage: gathered over processes, checked, never waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.core import dist
from fasttrain.core.pending import PendingFlush
from fasttrain.engine.events import EventStorage
from fasttrain.engine.loss_sum import LossDict, is_metric, trained_on

TOTAL = "total_loss"


class AsyncMetrics:
    """Writes losses without reading them from the device; a non-finite total raises later.

    The total of every step is put into the storage as a device scalar. Every `flush_period`
    iterations an asynchronous copy is begun; the step after which it has landed raises if a total
    was not finite, and so does whatever step follows a flush by the writers. On the CPU, where
    reading costs nothing, the step itself raises. The last step reads everything.

    Args:
        gather_period: iterations between two writes, each gathered over the processes. Between
            them only the finiteness of the losses is kept, on the device, and joins the next write.
        flush_period: iterations between two copies.
    """

    def __init__(self, gather_period: int = 1, flush_period: int = 20) -> None:
        for name, period in (("gather", gather_period), ("flush", flush_period)):
            if period < 1:
                raise ValueError(f"{name}_metric_period must be >= 1, got {period}")
        self._gather_period = gather_period
        self._flush_period = flush_period
        self._several: bool | None = None  # processes; asked for once, at the first write
        self._flush: PendingFlush | None = None
        self._unsent: Tensor | None = None  # 0 while the losses since the last write are finite

    def write(
        self,
        storage: EventStorage,
        losses: Mapping[str, Any],
        data_time: float | None,
        iteration: int,
        prefix: str = "",
        *,
        is_last: bool = False,
    ) -> None:
        """Put the losses, their sum (without names holding `acc`) and the data time.

        Args:
            losses: name -> scalar tensor.
            data_time: seconds spent waiting for the batch; nothing is put for None.
            iteration: the running iteration.
            prefix: put before the losses' names.
            is_last: read everything now (sync point), so that no total goes unchecked.
        Raises:
            FloatingPointError: a total of an earlier step (of this one on the CPU) is not finite.
        """
        if self._several is None:
            self._several = dist.world_size() > 1
        if self._gather_period > 1:
            if not is_last and (iteration + 1) % self._gather_period:
                self._keep_finiteness(losses)
                return
            losses = self._with_kept_finiteness(losses)
        if self._several:
            losses, data_time = self._gather(losses, data_time)
        stacked, total = None, None
        if isinstance(losses, LossDict):
            stacked, total = losses.stacked, losses.total
        if total is not None:
            entries = _named(losses, total, prefix)
        elif stacked is not None and not prefix and not storage.defers(stacked):
            numbers = stacked.tolist()
            entries = dict(zip(losses, numbers, strict=True))
            entries[TOTAL] = sum(numbers)
        else:
            entries = _with_total(storage, losses, stacked, prefix)
        if data_time is not None:
            entries["data_time"] = data_time
        storage.put_all(entries, cur_iter=iteration)
        store = storage.store
        if store.pending:
            self._fetch(storage, iteration, is_last=is_last)
        if store.nonfinite:
            _raise_if_total_is_nonfinite(storage)

    def _keep_finiteness(self, losses: Mapping[str, Any]) -> None:
        stacked = losses.stacked if isinstance(losses, LossDict) else None
        parts = trained_on(losses) if stacked is None else [stacked.detach().float().sum()]
        for part in parts:
            flag = part.detach().reshape(()) * 0.0  # NaN when it is not finite
            self._unsent = flag if self._unsent is None else self._unsent + flag

    def _with_kept_finiteness(self, losses: Mapping[str, Any]) -> Mapping[str, Any]:
        """The losses, one of them NaN when one since the last write was not finite."""
        unsent, self._unsent = self._unsent, None
        if unsent is None:
            return losses
        name = next(name for name in losses if not is_metric(name))
        return {**losses, name: losses[name].detach() + unsent}

    def _gather(
        self, losses: Mapping[str, Any], data_time: float | None
    ) -> tuple[dict[str, Any], Any]:
        """Means over processes, the maximum of the data time; no host read on a GPU."""
        tensors = [value for value in losses.values() if isinstance(value, Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        values = [torch.as_tensor(value, device=device) for value in losses.values()]
        joined = torch.stack([value.detach().float().reshape(()) for value in values])
        dist.all_reduce(joined, "mean")
        longest: Any = None
        if data_time is not None:
            longest = torch.tensor(data_time, dtype=torch.float64).to(device, non_blocking=True)
            dist.all_reduce(longest, "max")
        return dict(zip(losses, joined.unbind(), strict=True)), longest

    def _fetch(self, storage: EventStorage, iteration: int, *, is_last: bool) -> None:
        if is_last:
            self.drain(storage)
        elif self._flush is None:
            if (iteration + 1) % self._flush_period == 0:
                self._flush = storage.store.begin_flush()
        elif self._flush.ready():
            self._flush.finish()
            self._flush = None

    def drain(self, storage: EventStorage) -> None:
        """Bring the last values home (sync point), so that writers that close miss none."""
        self._flush = None
        storage.flush()


def _with_total(
    storage: EventStorage, losses: Mapping[str, Any], stacked: Tensor | None, prefix: str
) -> dict[str, Any]:
    """The losses under their full names, and their total; as numbers where reading is free."""
    parts = trained_on(losses)
    if not any(isinstance(part, Tensor) and storage.defers(part) for part in parts[:1]):
        values = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in losses.items()
        }
        return _named(values, sum(trained_on(values)), prefix)
    if len(parts) == 1:
        return _named(losses, parts[0], prefix)
    with torch.no_grad():
        if stacked is None:
            stacked = torch.stack([part.float().reshape(()) for part in parts])
        return _named(losses, stacked.sum(), prefix)


def _named(losses: Mapping[str, Any], total: Any, prefix: str) -> dict[str, Any]:
    """Total and losses with `prefix` before their names; a single loss is the total."""
    if len(losses) < 2:
        return {prefix + TOTAL: total}
    named = {prefix + name: value for name, value in losses.items()} if prefix else dict(losses)
    named[prefix + TOTAL] = total
    return named


def _raise_if_total_is_nonfinite(storage: EventStorage) -> None:
    """Raise for the first total that was not finite, with the losses of its iteration."""
    known = storage.histories()
    for name in storage.store.nonfinite:
        if not name.endswith(TOTAL) or name not in known:
            continue
        prefix = name.removesuffix(TOTAL)
        at = min(i for value, i in known[name].values() if not np.isfinite(value))
        losses = {
            key: {i: value for value, i in history.values()}.get(at)
            for key, history in known.items()
            if key.startswith(prefix) and storage.store.nonfinite.get(key)
        }
        raise FloatingPointError(
            f"Loss became infinite or NaN at iteration={at}!\nloss_dict = {losses}"
        )


def require_floats(results: Mapping[str, object]) -> dict[str, float]:
    """The results as floats.

    Raises:
        ValueError: one is no number; the message names it.
    """
    numbers: dict[str, float] = {}
    for name, value in results.items():
        try:
            numbers[name] = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError) as e:
            raise ValueError(
                "an evaluation must return a (nested) dict of name -> float, "
                f"got {name!r}: {value!r} ({type(value).__name__})"
            ) from e
    return numbers
