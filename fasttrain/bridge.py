"""Bridges between the faces: an engine hook on a Runner, a Runner hook on an engine trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fasttrain.engine.events import EventStorage
from fasttrain.engine.trainer_base import HookBase, TrainerBase
from fasttrain.hooks import Hook

RUNNER_STAGES = {
    "before_run", "before_train", "before_train_epoch", "before_train_iter", "after_train_iter",
    "after_train_epoch", "after_train", "after_run",
}  # fmt: skip
STATES = "engine_hooks"  # entry of a Runner's checkpoint


def _no_attribute(name: str, stands_for: str, offered: Any) -> AttributeError:
    return AttributeError(
        f"a bridged hook asked for {name!r}, which {stands_for} cannot offer; it offers "
        f"{', '.join(sorted(offered))}. Register the hook on its own face instead"
    )


class HubStorage(EventStorage):
    """An EventStorage whose scalars go to a Runner's message hub too, unread.

    Args:
        start_iter: the first iteration.
        hub: the message hub; a scalar called `name` arrives there as `train/name`.
    """

    def __init__(self, start_iter: int, hub: Any) -> None:
        super().__init__(start_iter)
        self._hub = hub

    def put_all(
        self,
        scalars: Mapping[str, Any],
        smoothing_hint: bool = True,
        *,
        cur_iter: int | None = None,
    ) -> None:
        super().put_all(scalars, smoothing_hint, cur_iter=cur_iter)
        self._hub.update_prefixed(f"train/{self.prefix}", dict(scalars))


class TrainerView:
    """What an engine hook sees of a Runner as its `trainer`."""

    OFFERED = (
        "iter", "start_iter", "max_iter", "storage", "model", "optimizer", "data_loader", "cfg",
    )  # fmt: skip

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.storage = HubStorage(runner.iter, runner.message_hub)
        self.start_iter = runner.iter

    @property
    def iter(self) -> int:
        """The running iteration; the last one plus one once training has ended well."""
        return int(self._runner.iter)

    @property
    def max_iter(self) -> int:
        return int(self._runner.max_iters)

    @property
    def model(self) -> Any:
        return self._runner.model

    @property
    def optimizer(self) -> Any:
        return self._runner.optim_wrapper.optimizer

    @property
    def data_loader(self) -> Any:
        return self._runner.train_dataloader

    @property
    def cfg(self) -> Any:
        return self._runner.cfg

    def __getattr__(self, name: str) -> Any:
        raise _no_attribute(name, "a Runner", self.OFFERED)


class EngineHook(Hook):
    """Runs an engine hook on a Runner: `Runner(custom_hooks=[EngineHook(hook)], ...)`.

    What the hook puts into its trainer's storage goes to the Runner's message hub, under
    `train/<name>`. `after_train` runs at the end of a training that came to its end. The hook's
    state is saved in the Runner's checkpoints and restored from them.

    Args:
        hook: an engine hook.
        priority: as of every Runner hook.
    Raises:
        TypeError: it is no engine hook, or acts after the backward pass, which a Runner's hook
            cannot.
    """

    def __init__(self, hook: HookBase, priority: Any = "NORMAL") -> None:
        if not isinstance(hook, HookBase):
            raise TypeError(f"expected an engine HookBase, got {type(hook).__name__}")
        if type(hook).after_backward is not HookBase.after_backward:
            raise TypeError(
                f"{type(hook).__name__} acts at after_backward, which a Runner does not have; "
                "register it on an engine trainer"
            )
        self.hook = hook
        self.priority = priority
        self._view: TrainerView | None = None

    def _begin(self, runner: Any) -> TrainerView:
        self._view = TrainerView(runner)
        self.hook.trainer = self._view  # type: ignore[assignment]
        return self._view

    def before_train(self, runner: Any) -> None:
        with self._begin(runner).storage:
            self.hook.before_train()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        view = self._view or self._begin(runner)
        view.storage.iter = runner.iter
        with view.storage:
            self.hook.before_step()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        with (self._view or self._begin(runner)).storage:
            self.hook.after_step()

    def after_train(self, runner: Any) -> None:
        view = self._view or self._begin(runner)
        view.storage.iter = runner.iter
        with view.storage:
            self.hook.after_train()

    def _key(self, runner: Any) -> str:
        """The hook's class, and its number among the Runner's hooks of that class."""
        bridged = [hook.hook for hook in runner.hooks if isinstance(hook, EngineHook)]
        alike = [hook for hook in bridged if type(hook) is type(self.hook)]
        number = next(i for i, hook in enumerate(alike) if hook is self.hook)
        return f"{type(self.hook).__qualname__}#{number}"

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        state = self.hook.state_dict()
        if state:
            checkpoint.setdefault(STATES, {})[self._key(runner)] = state

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        state = checkpoint.get(STATES, {}).get(self._key(runner))
        if state is not None:
            self._begin(runner)
            self.hook.load_state_dict(state)  # type: ignore[attr-defined]


class RunnerView:
    """What a Runner's hook sees of an engine trainer as its `runner`."""

    OFFERED = ("iter", "max_iters", "epoch", "max_epochs", "model", "train_dataloader", "cfg")

    def __init__(self, trainer: Any, iters_per_epoch: int | None) -> None:
        self._trainer = trainer
        self._iters_per_epoch = iters_per_epoch

    @property
    def iter(self) -> int:
        return int(self._trainer.iter)

    @property
    def max_iters(self) -> int:
        return int(self._trainer.max_iter)

    @property
    def epoch(self) -> int:
        return self.iter // self._iters_per_epoch if self._iters_per_epoch else 0

    @property
    def max_epochs(self) -> int:
        return -(-self.max_iters // self._iters_per_epoch) if self._iters_per_epoch else 1

    @property
    def model(self) -> Any:
        return self._trainer.model

    @property
    def train_dataloader(self) -> Any:
        own = getattr(self._trainer, "train_data_loader", None)
        return self._trainer.data_loader if own is None else own

    @property
    def cfg(self) -> Any:
        return self._trainer.cfg

    def __getattr__(self, name: str) -> Any:
        raise _no_attribute(name, "an engine trainer", self.OFFERED)


def _acts_at(hook: Hook, stage: str) -> bool:
    """Whether the hook acts at this very stage, not only at all stages of its kind."""
    return stage in vars(hook) or getattr(type(hook), stage) is not getattr(Hook, stage)


class RunnerHook(HookBase):
    """Runs a Runner's hook on an engine trainer: `trainer.register_hooks([RunnerHook(hook)])`.

    The hook's training stages are called; batches and outputs are not known to an engine hook, so
    they are None. Epochs follow the trainer's `iters_per_epoch`, else all is one epoch. What the
    hook asks its runner for beyond RunnerView raises an AttributeError that says so.

    Args:
        hook: a Runner's hook.
        ignore: stages at which the hook acts but that it can do without.
    Raises:
        TypeError: it is no Runner's hook, or acts at a stage that an engine trainer does not have
            (validation, test, saving and loading).
    """

    def __init__(self, hook: Hook, *, ignore: Iterable[str] = ()) -> None:
        if not isinstance(hook, Hook):
            raise TypeError(f"expected a Runner's Hook, got {type(hook).__name__}")
        foreign = set(Hook.stages) - RUNNER_STAGES - set(ignore)
        found = [stage for stage in Hook.stages if stage in foreign and _acts_at(hook, stage)]
        if found:
            raise TypeError(
                f"{type(hook).__name__} acts at {', '.join(found)}, which an engine trainer does "
                "not have; register it on a Runner, or name these stages in `ignore`"
            )
        self.hook = hook
        self._view: Any = None
        self._iters_per_epoch: int | None = None

    def before_train(self) -> None:
        trainer: TrainerBase = self.trainer
        self._iters_per_epoch = getattr(trainer, "iters_per_epoch", None)
        self._view = RunnerView(trainer, self._iters_per_epoch)
        self.hook.before_run(self._view)
        self.hook.before_train(self._view)

    def _position(self) -> tuple[int, bool, bool]:
        """The index in the epoch, and whether an epoch begins and ends with this step."""
        trainer = self.trainer
        length = self._iters_per_epoch
        index = trainer.iter % length if length else trainer.iter - trainer.start_iter
        last = trainer.iter + 1 == trainer.max_iter
        ends = last or (length is not None and index + 1 == length)
        return index, index == 0 or trainer.iter == trainer.start_iter, ends

    def before_step(self) -> None:
        index, begins, _ = self._position()
        if begins:
            self.hook.before_train_epoch(self._view)
        self.hook.before_train_iter(self._view, batch_idx=index)

    def after_step(self) -> None:
        index, _, ends = self._position()
        self.hook.after_train_iter(self._view, batch_idx=index)
        if ends:
            self.hook.after_train_epoch(self._view)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self.hook.after_train(self._view)
        self.hook.after_run(self._view)
