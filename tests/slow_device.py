"""A slow device on the CPU: what it is asked for arrives when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class SlowTransfer:
    """A copy that lands at `reader.land()`, or when someone insists on its values."""

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        self.landed = False
        self.insisted = False
        # Read now: later changes of the tensors must not show.
        self._values = torch.cat([vector.double() for vector in vectors]).numpy()

    def ready(self) -> bool:
        return self.landed

    def values(self) -> np.ndarray:
        self.insisted = not self.landed
        self.landed = True
        return self._values


class SlowReader:
    """Treats every tensor as one of a device; counts the copies."""

    direct = False

    def __init__(self) -> None:
        self.transfers: list[SlowTransfer] = []

    def defers(self, value: Tensor) -> bool:
        return True

    def begin(self, vectors: Sequence[Tensor]) -> SlowTransfer:
        self.transfers.append(SlowTransfer(vectors))
        return self.transfers[-1]

    def land(self) -> None:
        """Let everything arrive that is under way."""
        for transfer in self.transfers:
            transfer.landed = True

    @property
    def num_waits(self) -> int:
        """How many copies someone had to wait for."""
        return sum(transfer.insisted for transfer in self.transfers)
