"""Behind which iteration all ranks stop, when each of them was asked to at a moment of its own."""

from __future__ import annotations

import logging
import time

from torch.distributed import distributed_c10d

from fasttrain.core import dist

_logger = logging.getLogger("fasttrain")
PATIENCE_S = 5.0


class CommonStop:
    """Rank 0 names the iteration in the key-value store that the process group was started with.

    Ranks that reduce gradients together are in step: nobody gets past such an iteration before
    rank 0 has begun it. What rank 0 writes between two of them, all find behind the next one.

    Args:
        key: names the run, the same on every rank and in no other run of these processes.
    """

    def __init__(self, key: str) -> None:
        self._key = f"fasttrain/stop/{key}"
        self._stop_at: int | None = None
        self._asked_at_s: float | None = None

    def is_due(self, num_iters: int, lead: int = 1) -> bool:
        """Whether this rank, which was asked to stop, stops here; call it behind each iteration.

        It is, too, where no answer came for some seconds: rank 0 was not asked, or is gone.

        Args:
            num_iters: iterations done.
            lead: iterations within which the ranks reduce gradients at least once.
        """
        if dist.world_size() == 1:
            return True
        if self._asked_at_s is None:
            self._asked_at_s = time.monotonic()
        if self._stop_at is None:
            try:
                self._stop_at = self._agree(num_iters + lead)
            except RuntimeError as error:  # the store went with the process that held it
                _logger.warning("this rank stops alone, behind iteration %d: %s", num_iters, error)
                return True
        if self._stop_at is None:
            return time.monotonic() - self._asked_at_s > PATIENCE_S
        return num_iters >= self._stop_at

    def _agree(self, wanted: int) -> int | None:
        store = distributed_c10d._get_default_store()
        if dist.rank() == 0:
            store.set(self._key, str(wanted))
            return wanted
        return int(store.get(self._key)) if store.check([self._key]) else None
