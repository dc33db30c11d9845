"""TrainLoop: what both training loops share: counters, validation in between, exact resuming."""

from __future__ import annotations

import logging
from bisect import bisect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from fasttrain.core.batches import Batches
from fasttrain.core.checkpoint import collect_rng_state, restore_rng_state
from fasttrain.core.common_stop import CommonStop
from fasttrain.core.prefetch import Prefetcher
from fasttrain.core.strategy import SingleDevice
from fasttrain.logging import print_log

from .base_loop import BaseLoop
from .snapshot import longest_group
from .utils import calc_dynamic_intervals

if TYPE_CHECKING:
    from fasttrain.runner.runner import Runner


class TrainLoop(BaseLoop):
    """Base of the training loops.

    Args:
        runner: the runner whose model is trained.
        dataloader: the training data, or the dict to build its dataloader from.
        val_begin: the epoch or iteration from which on to validate.
        val_interval: epochs or iterations between validations.
        dynamic_intervals: `[(milestone, interval), ...]`, intervals that hold from a milestone on.
        prefetch: on CUDA, copy the next batch to the device while the present one is computed.
            Hooks then see batches that are on the device. With num_workers=0 the next batch is
            also loaded early, so that items must not draw random numbers for exact resuming.
    """

    _max_epochs: int
    _max_iters: int

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        val_begin: int,
        val_interval: int,
        dynamic_intervals: list[tuple[int, int]] | None,
        prefetch: bool,
    ) -> None:
        super().__init__(runner, dataloader)
        self._epoch = 0
        self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        # A hook sets this to end the training after the running epoch or iteration.
        self.stop_training = False
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(
            val_interval, dynamic_intervals
        )
        self._dataset_meta("visualizer")
        self._batches = Batches()
        self._prefetch = prefetch
        self._resumed = False
        self._rng_to_restore: dict[str, Any] = {}
        self._rng_before_val: dict[str, Any] | None = None
        self._between_iterations = False
        self._num_starts = 0
        self._common_stop: CommonStop | None = None

    @property
    def max_epochs(self) -> int:
        """Number of epochs of the whole training."""
        return self._max_epochs

    @property
    def max_iters(self) -> int:
        """Number of iterations of the whole training."""
        return self._max_iters

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Number of iterations done."""
        return self._iter

    @property
    def at_boundary(self) -> bool:
        return self._between_iterations or self._batches.failed_while_fetching

    def close(self) -> None:
        self._batches.close()

    def resume_state(self, epoch: int, iter: int) -> dict[str, Any]:
        rng = self._rng_before_val
        return {
            "batches": self._position(epoch, iter),
            "rng": collect_rng_state() if rng is None else rng,
        }

    def load_resume_state(self, state: dict[str, Any]) -> None:
        self._batches.seek(state.get("batches") or self._guessed_position())
        self._rng_to_restore = state.get("rng", {})
        self._resumed = True

    def _on_device(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches as the model gets them."""
        return iter(Prefetcher(batches, SingleDevice().device)) if self._prefetch else batches

    def _position(self, epoch: int, iter: int) -> dict[str, Any]:
        return self._batches.position(self.dataloader, iter)

    def _guessed_position(self) -> dict[str, Any]:
        """The position that the counters alone tell, for a checkpoint that does not hold one."""
        raise NotImplementedError

    def _start(self) -> None:
        """Begin the training: check the data, call the hooks, bring back the random state."""
        self._require_data("train")
        self._between_iterations = False
        self._num_starts += 1
        self._common_stop = None
        if self._iter > 0 and not self._resumed:
            self._batches.seek(self._guessed_position())
        self.runner.call_hook("before_train")
        if self._rng_to_restore:
            self._restore_rng(self._rng_to_restore)
            self._rng_to_restore = {}

    def _restore_rng(self, state: dict[str, Any]) -> None:
        try:
            restore_rng_state(state)
        except ValueError as e:
            print_log(
                f"The random state of CUDA is not restored: {e}",
                logger="current",
                level=logging.WARNING,
            )

    def _decide_current_val_interval(self) -> None:
        """Take the interval that holds at the present count of epochs or iterations."""
        step = bisect(self.dynamic_milestones, self._count() + 1)
        self.val_interval = self.dynamic_intervals[step - 1]

    def _count(self) -> int:
        """What `val_interval` counts."""
        raise NotImplementedError

    def _validate_if_due(self, last: int) -> None:
        """Validate when the interval says so, and after the last epoch or iteration."""
        count = self._count()
        if count < self.val_begin or not (count % self.val_interval == 0 or count == last):
            return
        val_loop = self.runner.val_loop
        if val_loop is None:
            return
        # Validation must not change what training draws: a resumed run does not repeat it.
        self._rng_before_val = collect_rng_state()
        self._between_iterations = True
        val_loop.run()
        self._between_iterations = False
        self._restore_rng(self._rng_before_val)
        self._rng_before_val = None

    def _stop_if_interrupted(self) -> None:
        """Stop behind this iteration, or a little later when other ranks are ahead of this one."""
        if self._common_stop is None:
            name = self._runner._experiment_name
            self._common_stop = CommonStop(f"{name}/{self._num_starts}")
        if not self._common_stop.is_due(self._iter, longest_group(self._runner.optim_wrapper)):
            return
        self._between_iterations = True
        raise KeyboardInterrupt
