"""Gather what each rank adds to a checkpoint through the store: an absent rank hangs nobody.

A collective would wait for ranks that never come when only some of them save (a save on rank 0
alone, an interrupt between two iterations); on NCCL it would also stop the device. The key-value
store that every process group is started with needs neither.
"""

from __future__ import annotations

import io
import logging
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed import distributed_c10d

from fasttrain.core import dist
from fasttrain.core.checkpoint.restricted import load
from fasttrain.core.checkpoint.tree import plain_tree

_logger = logging.getLogger("fasttrain.checkpoint")


def pack(state: Any) -> Tensor:
    """A small state as shape [num_bytes], uint8: one tensor for what may be thousands of ranks."""
    buffer = io.BytesIO()
    torch.save(plain_tree(state, lambda tensor: tensor), buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def unpack(packed: Tensor) -> Any:
    """The state that `pack` was given, loaded without running what it says."""
    return load(io.BytesIO(packed.cpu().numpy().tobytes()))


class RankExchange:
    """The exchange of one save: rank 0 receives, the others send and may wait for an answer.

    Args:
        key: names the save, the same on every rank.
        wait_s: how long rank 0 waits for the others altogether, and they for its answer.
    """

    def __init__(self, key: str, wait_s: float) -> None:
        self.key = f"fasttrain/checkpoint/{key}"
        self.wait_s = wait_s
        self._store = distributed_c10d._get_default_store()

    def send(self, state: Any) -> None:
        """Leave this rank's state for rank 0; waits for nobody."""
        data = pack(state).numpy().tobytes()
        self._store.set(f"{self.key}/{dist.rank()}", data)  # type: ignore[arg-type]

    def receive(self) -> list[Tensor | None]:
        """The packed states of the ranks from 1 on; None for those that did not come in time."""
        deadline = time.monotonic() + self.wait_s
        received = []
        for rank in range(1, dist.world_size()):
            data = self._take(f"{self.key}/{rank}", deadline - time.monotonic())
            found = data is not None
            received.append(
                torch.frombuffer(bytearray(data or b""), dtype=torch.uint8) if found else None
            )
        return received

    def answer(self, go_on: bool) -> None:
        """Tell the ranks that wait in `is_answered` whether all came."""
        for rank in range(1, dist.world_size()):
            self._store.set(f"{self.key}/go/{rank}", b"1" if go_on else b"0")  # type: ignore[arg-type]

    def is_answered(self) -> bool:
        """Whether rank 0 came too and says that all ranks did."""
        return self._take(f"{self.key}/go/{dist.rank()}", self.wait_s) == b"1"

    def _take(self, key: str, wait_s: float) -> bytes | None:
        try:
            self._store.wait([key], timedelta(seconds=max(wait_s, 0.001)))
        except RuntimeError as error:  # the store's timeout has no type of its own everywhere
            _logger.debug("nothing came for %s: %s", key, error)
            return None
        data = self._store.get(key)
        with suppress(RuntimeError, NotImplementedError):
            self._store.delete_key(key)
        return bytes(data)
