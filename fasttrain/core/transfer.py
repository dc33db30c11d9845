"""How scalars leave a device: which of them wait there, and the one copy that fetches many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fasttrain.core import dist


class Transfer(Protocol):
    """A copy to the host under way."""

    def ready(self) -> bool: ...
    def values(self) -> np.ndarray: ...


class Reader(Protocol):
    """Which tensors to leave on their device, and how to fetch many of them at once."""

    direct: bool  # whether host tensors are read at once

    def defers(self, value: Tensor) -> bool: ...
    def begin(self, vectors: Sequence[Tensor]) -> Transfer: ...


class HostTransfer:
    """The null transfer: what it carries is on the host already."""

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        flat = [vector.to("cpu", torch.float64) for vector in vectors]
        self._values = torch.cat(flat).numpy() if flat else np.empty(0)

    def ready(self) -> bool:
        return True

    def values(self) -> np.ndarray:
        return self._values


class DeviceTransfer:
    """One copy per device through pinned memory, with an event that tells when it has landed."""

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        self._order: list[tuple[int, int]] = []  # per vector: its copy and its length
        self._copies: list[tuple[Tensor, torch.cuda.Event]] = []
        groups: dict[torch.device, list[Tensor]] = {}
        for vector in vectors:
            groups.setdefault(vector.device, []).append(vector)
        index = {device: number for number, device in enumerate(groups)}
        self._order = [(index[vector.device], vector.numel()) for vector in vectors]
        for device, group in groups.items():
            packed = _pack(group)
            with torch.cuda.device(device):
                host = torch.empty(packed.numel(), dtype=torch.float64, pin_memory=True)
                host.copy_(packed, non_blocking=True)
                landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
                landed.record()
            self._copies.append((host, landed))

    def ready(self) -> bool:
        return all(landed.query() for _, landed in self._copies)  # type: ignore[no-untyped-call]

    def values(self) -> np.ndarray:
        for _, landed in self._copies:
            landed.synchronize()  # sync point
        hosts = [host.numpy() for host, _ in self._copies]
        if len(hosts) == 1:
            return hosts[0].copy()
        starts, parts = [0] * len(hosts), []
        for number, length in self._order:
            parts.append(hosts[number][starts[number] : starts[number] + length])
            starts[number] += length
        return np.concatenate(parts) if parts else np.empty(0)


def _pack(vectors: Sequence[Tensor]) -> Tensor:
    """Join vectors of one device as float64 with one cast per run of equal types."""
    if len(vectors) == 1:
        return vectors[0].to(torch.float64)
    runs: list[list[Tensor]] = []
    for vector in vectors:
        if runs and runs[-1][0].dtype == vector.dtype:
            runs[-1].append(vector)
        else:
            runs.append([vector])
    joined = [torch.cat(run).to(torch.float64) for run in runs]
    return joined[0] if len(joined) == 1 else torch.cat(joined)


class TorchReader:
    """Leaves tensors of a GPU where they are; host tensors are read at once."""

    direct = True

    def defers(self, value: Tensor) -> bool:
        return not value.is_cpu

    def begin(self, vectors: Sequence[Tensor]) -> Transfer:
        if vectors and all(vector.is_cuda for vector in vectors):
            return DeviceTransfer(vectors)
        return HostTransfer(vectors)  # sync point on a device that is neither host nor CUDA


class AveragingReader:
    """Averages what it fetches over all processes, in one all-reduce per fetch.

    All processes must put the same scalars and begin their fetches at the same points.

    Args:
        group: `None` for the default group.
    """

    direct = False

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self._inner = TorchReader()

    def defers(self, value: Tensor) -> bool:
        return True

    def begin(self, vectors: Sequence[Tensor]) -> Transfer:
        device = dist.comm_device(self._group)
        packed = torch.cat([vector.to(device, torch.float64) for vector in vectors])
        dist.all_reduce(packed, "mean", self._group)
        return self._inner.begin([packed])
