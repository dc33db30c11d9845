"""Hook: the points of a run at which user code is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fasttrain.registry import HOOKS

if TYPE_CHECKING:
    from fasttrain.runner import Runner

DATA_BATCH = dict | tuple | list | None

# A stage that a hook does not override calls the shared method named here.
_SHARED = {
    f"{when}_{mode}_{what}": f"_{when}_{what}"
    for when in ("before", "after")
    for mode in ("train", "val", "test")
    for what in ("epoch", "iter")
}


@HOOKS.register_module()
class Hook:
    """Base class of hooks: every stage is there and does nothing.

    `_before_epoch`, `_after_epoch`, `_before_iter` and `_after_iter` serve train, val and test at
    once; they get the `mode`.
    """

    priority: Any = "NORMAL"
    stages = (
        "before_run", "after_load_checkpoint", "before_train", "before_train_epoch",
        "before_train_iter", "after_train_iter", "after_train_epoch", "before_val",
        "before_val_epoch", "before_val_iter", "after_val_iter", "after_val_epoch", "after_val",
        "before_save_checkpoint", "after_train", "before_test", "before_test_epoch",
        "before_test_iter", "after_test_iter", "after_test_epoch", "after_test", "after_run",
    )  # fmt: skip

    def before_run(self, runner: Runner) -> None:
        """Before everything else of `Runner.train`, `val` or `test`."""

    def after_run(self, runner: Runner) -> None:
        """At the very end of `Runner.train`, `val` or `test`."""

    def before_train(self, runner: Runner) -> None:
        """Before the first epoch or iteration."""

    def after_train(self, runner: Runner) -> None:
        """After the last epoch or iteration."""

    def before_val(self, runner: Runner) -> None:
        """Before a validation."""

    def after_val(self, runner: Runner) -> None:
        """After a validation."""

    def before_test(self, runner: Runner) -> None:
        """Before a test."""

    def after_test(self, runner: Runner) -> None:
        """After a test."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Before a checkpoint is written; `checkpoint` may be changed."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """After a checkpoint was read and before its content is used; it may be changed."""

    def before_train_epoch(self, runner: Runner) -> None:
        """Before each training epoch."""
        self._before_epoch(runner, mode="train")

    def before_val_epoch(self, runner: Runner) -> None:
        """Before the pass over the validation data."""
        self._before_epoch(runner, mode="val")

    def before_test_epoch(self, runner: Runner) -> None:
        """Before the pass over the test data."""
        self._before_epoch(runner, mode="test")

    def after_train_epoch(self, runner: Runner) -> None:
        """After each training epoch."""
        self._after_epoch(runner, mode="train")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """After the pass over the validation data, with its metrics."""
        self._after_epoch(runner, mode="val")

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """After the pass over the test data, with its metrics."""
        self._after_epoch(runner, mode="test")

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None
    ) -> None:
        """Before each training iteration; `batch_idx` counts within the epoch."""
        self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="train")

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None
    ) -> None:
        """Before each validation iteration."""
        self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="val")

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None
    ) -> None:
        """Before each test iteration."""
        self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="test")

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        """After each training iteration, with what `train_step` returned."""
        self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="train"
        )

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence | None = None,
    ) -> None:
        """After each validation iteration, with what `val_step` returned."""
        self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="val"
        )

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence | None = None,
    ) -> None:
        """After each test iteration, with what `test_step` returned."""
        self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="test"
        )

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        """Before each epoch of any mode."""

    def _after_epoch(self, runner: Runner, mode: str = "train") -> None:
        """After each epoch of any mode."""

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, mode: str = "train"
    ) -> None:
        """Before each iteration of any mode."""

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence | dict | None = None,
        mode: str = "train",
    ) -> None:
        """After each iteration of any mode."""

    def every_n_epochs(self, runner: Runner, n: int, start: int = 0) -> bool:
        """Whether the running epoch is an n-th one, counted from `start`; never for n < 1."""
        done = runner.epoch + 1 - start
        return n > 0 and done >= 0 and done % n == 0

    def every_n_inner_iters(self, batch_idx: int, n: int) -> bool:
        """Whether this is an n-th iteration within its epoch; never for n < 1."""
        return n > 0 and (batch_idx + 1) % n == 0

    def every_n_train_iters(self, runner: Runner, n: int, start: int = 0) -> bool:
        """Whether the running training iteration is an n-th one, counted from `start`."""
        done = runner.iter + 1 - start
        return n > 0 and done >= 0 and done % n == 0

    def end_of_epoch(self, dataloader: Any, batch_idx: int) -> bool:
        """Whether `batch_idx` is the dataloader's last batch."""
        return batch_idx + 1 == len(dataloader)

    def is_last_train_epoch(self, runner: Runner) -> bool:
        """Whether the running epoch is the last one."""
        return runner.epoch + 1 == runner.max_epochs

    def is_last_train_iter(self, runner: Runner) -> bool:
        """Whether the running iteration is the last one."""
        return runner.iter + 1 == runner.max_iters

    def get_triggered_stages(self) -> list[str]:
        """The stages at which this hook does something, in the order of a run."""
        return [stage for stage in Hook.stages if not is_noop(self, stage)]


def is_noop(hook: Any, stage: str) -> bool:
    """Whether calling `stage` on `hook` would only reach the empty methods of `Hook`."""
    return _inherits(hook, stage) and (stage not in _SHARED or _inherits(hook, _SHARED[stage]))


def _inherits(hook: Any, name: str) -> bool:
    own = getattr(Hook, name, None)
    return (
        own is not None
        and getattr(type(hook), name, None) is own
        and name not in getattr(hook, "__dict__", {})
    )
