"""From a step's losses to the storage: gathered over processes, checked, never waited for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fasttrain.core import dist
from fasttrain.engine.events import EventStorage


def _is_metric(name: str) -> bool:
    return "acc" in name.lower()


class AsyncMetrics:
    """Writes losses without reading them from the device; a non-finite total raises later.

    The total of every step is put into the storage as a device scalar. Whoever flushes the
    storage (the writers, each period) brings it home, and the next `write` after that raises if
    one was not finite. On the CPU, where reading costs nothing, it raises at once.

    Args:
        gather_period: iterations between two gatherings over processes; in between only nothing
            is written when there are several.
    """

    def __init__(self, gather_period: int = 1) -> None:
        self._gather_period = gather_period

    def write(
        self,
        storage: EventStorage,
        losses: Mapping[str, Tensor],
        data_time: float,
        iteration: int,
        prefix: str = "",
    ) -> None:
        """Put the losses, their sum (without names holding `acc`) and the data time.

        Args:
            losses: name -> scalar tensor.
            data_time: seconds spent waiting for the batch.
            iteration: the running iteration.
            prefix: put before every name.
        Raises:
            FloatingPointError: a total of an earlier step (of this one on the CPU) is not finite.
        """
        several = dist.world_size() > 1
        if several and (iteration + 1) % self._gather_period:
            return
        names = list(losses)
        values = [value.detach() for value in losses.values()]
        if several:
            values, data_time = _gather(values, data_time)
        if values and values[0].is_cpu:
            self._put_host(storage, names, values, prefix)
        else:
            self._put_device(storage, names, values, prefix)
        storage.put_scalar("data_time", data_time)
        self.check(storage, prefix)

    def _put_host(
        self, storage: EventStorage, names: list[str], values: list[Tensor], prefix: str
    ) -> None:
        numbers = dict(zip(names, (value.item() for value in values), strict=True))
        total = sum(number for name, number in numbers.items() if not _is_metric(name))
        _put(storage, numbers, total, prefix)

    def _put_device(
        self, storage: EventStorage, names: list[str], values: list[Tensor], prefix: str
    ) -> None:
        added = [v for name, v in zip(names, values, strict=True) if not _is_metric(name)]
        total = torch.stack([v.float().reshape(()) for v in added]).sum() if added else 0.0
        _put(storage, dict(zip(names, values, strict=True)), total, prefix)

    def check(self, storage: EventStorage, prefix: str = "") -> None:
        """Raise if the storage has noticed a total that is not finite."""
        name = f"{prefix}total_loss"
        if name in storage.store.nonfinite:
            iteration = storage.store.nonfinite_steps[name]
            bad = sorted(storage.store.nonfinite)
            latest = {key: storage.history(key).latest() for key in bad}
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={iteration}!\nloss_dict = {latest}"
            )

    def drain(self, storage: EventStorage) -> None:
        """Bring the last values home (sync point), so that writers that close miss none."""
        storage.flush()


def _put(storage: EventStorage, parts: Mapping[str, object], total: object, prefix: str) -> None:
    storage.put_scalar(f"{prefix}total_loss", total)
    if len(parts) > 1:
        for name, value in parts.items():
            if f"{prefix}{name}" != f"{prefix}total_loss":
                storage.put_scalar(f"{prefix}{name}", value)


def _gather(values: list[Tensor], data_time: float) -> tuple[list[Tensor], float]:
    """Mean of the losses and maximum of the data time over processes, in two collectives."""
    device = values[0].device if values else torch.device("cpu")
    joined = torch.stack([value.float().reshape(()).to(device) for value in values])
    dist.all_reduce(joined, "mean")
    times = dist.all_gather_object(data_time)
    return list(joined.unbind()), float(np.max(times))


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
