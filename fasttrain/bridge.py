"""Bridges between the faces: an engine hook on a Runner, a Runner hook on an engine trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fasttrain.engine.events import EventStorage
from fasttrain.engine.trainer_base import HookBase
from fasttrain.hooks import Hook

RUNNER_STAGES = {
    "before_run", "before_train", "before_train_epoch", "before_train_iter", "after_train_iter",
    "after_train_epoch", "after_train", "after_run",
}  # fmt: skip
STATES = "engine_hooks"  # entry of a Runner's checkpoint


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


class View:
    """One face's object as the other face's hooks see it: the attributes that have a counterpart.

    Raises:
        AttributeError: a hook asks for one that has none; says what is offered.
    """

    stands_for: str
    OFFERED: Mapping[str, Callable[[Any], Any]]

    def __init__(self, subject: Any) -> None:
        self.subject = subject

    def __getattr__(self, name: str) -> Any:
        if name in self.OFFERED:
            return self.OFFERED[name](self.subject)
        raise AttributeError(
            f"a bridged hook asked for {name!r}, which {self.stands_for} cannot offer; it offers "
            f"{', '.join(sorted(self.OFFERED))}. Register the hook on its own face instead"
        )


class TrainerView(View):
    """What an engine hook sees of a Runner as its `trainer`."""

    stands_for = "a Runner"
    OFFERED: Mapping[str, Callable[[Any], Any]] = {
        "iter": lambda runner: int(runner.iter),
        "max_iter": lambda runner: int(runner.max_iters),
        "model": lambda runner: runner.model,
        "optimizer": lambda runner: runner.optim_wrapper.optimizer,
        "data_loader": lambda runner: runner.train_dataloader,
        "cfg": lambda runner: runner.cfg,
    }

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        self.storage = HubStorage(runner.iter, runner.message_hub)
        self.start_iter = runner.iter


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


class RunnerView(View):
    """What a Runner's hook sees of an engine trainer as its `runner`."""

    stands_for = "an engine trainer"
    OFFERED: Mapping[str, Callable[[Any], Any]] = {
        "iter": lambda trainer: int(trainer.iter),
        "max_iters": lambda trainer: int(trainer.max_iter),
        "epoch": lambda trainer: trainer.iter // _epoch_length(trainer),
        "max_epochs": lambda trainer: -(-trainer.max_iter // _epoch_length(trainer)),
        "model": lambda trainer: trainer.model,
        "train_dataloader": lambda trainer: _loader_of(trainer),
        "cfg": lambda trainer: trainer.cfg,
    }


def _epoch_length(trainer: Any) -> int:
    """Iterations per epoch; a trainer that knows none runs a single epoch."""
    return int(getattr(trainer, "iters_per_epoch", None) or max(trainer.max_iter, 1))


def _loader_of(trainer: Any) -> Any:
    own = getattr(trainer, "train_data_loader", None)
    return trainer.data_loader if own is None else own


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

    def before_train(self) -> None:
        self._view = RunnerView(self.trainer)
        self.hook.before_run(self._view)
        self.hook.before_train(self._view)

    def _position(self) -> tuple[int, bool, bool]:
        """The index in the epoch, and whether an epoch begins and ends with this step."""
        trainer, length = self.trainer, _epoch_length(self.trainer)
        index = trainer.iter % length
        begins = index == 0 or trainer.iter == trainer.start_iter
        return index, begins, index + 1 == length or trainer.iter + 1 == trainer.max_iter

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
