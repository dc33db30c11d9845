"""TrainerBase and HookBase: a loop of steps with hooks around them, and nothing else."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fasttrain.core.hooks import HookList
from fasttrain.engine.events import EventStorage

logger = logging.getLogger("fasttrain.engine")


class HookBase:
    """What runs around a trainer's steps: every method is there and does nothing.

    `before_train` and `after_train` run once, `before_step` and `after_step` around each
    `run_step`. Work that takes time belongs into `after_step`: timers count what lies between the
    two.
    """

    trainer: TrainerBase = None  # type: ignore[assignment]  # a weak proxy, set at registration

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, also when an iteration raised."""

    def before_step(self) -> None:
        """Before each iteration."""

    def after_backward(self) -> None:
        """After each backward pass, before the optimizer steps."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this hook; a hook that keeps something overrides this and
        has a `load_state_dict`."""
        return {}


def _is_noop(hook: HookBase, stage: str) -> bool:
    own = getattr(HookBase, stage, None)
    return own is not None and getattr(type(hook), stage) is own and stage not in vars(hook)


class TrainerBase:
    """A loop with hooks; it knows no data, model or optimizer.

    Attributes:
        iter: the running iteration; equals `max_iter` in `after_train` when all went well.
        start_iter: the first iteration of this call of `train`.
        max_iter: the iteration at which training ends.
        storage: the EventStorage that is open while training.
    """

    def __init__(self) -> None:
        self._hook_list: HookList[HookBase] = HookList(_is_noop)
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int = 0
        self.storage: EventStorage

    @property
    def _hooks(self) -> HookList[HookBase]:
        """The hooks in the order in which they run; a list of hooks may be set in its place."""
        return self._hook_list

    @_hooks.setter
    def _hooks(self, hooks: Iterable[HookBase]) -> None:
        self._hook_list.replace(hooks, lambda hook: 0)

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks; they run in the order of registration, and None is left out.

        Raises:
            TypeError: an entry is no HookBase.
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise TypeError(
                    f"hooks must be HookBase objects or None, got {type(hook).__name__}; "
                    "wrap plain functions in a CallbackHook"
                )
            hook.trainer = weakref.proxy(self)
            self._hook_list.add(hook, 0)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations `start_iter` to `max_iter - 1`.

        Raises:
            ValueError: `start_iter` lies behind `max_iter`.
        """
        if start_iter > max_iter:
            raise ValueError(
                f"start_iter must be <= max_iter, got {start_iter} > {max_iter}; the checkpoint "
                "that was resumed is already past the end: raise max_iter to train on"
            )
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max_iter  # tells after_train that training came to its end
            except BaseException as e:
                if isinstance(e, Exception):
                    logger.exception("Exception during training:")
                self._clean_up_after(e)
                raise
            self.after_train()

    def _clean_up_after(self, error: BaseException) -> None:
        """Run after_train; what fails in it is logged and does not hide the first error."""
        try:
            self.after_train()
        except Exception as e:
            logger.error("after_train failed too, after %r: %r", error, e)

    def before_train(self) -> None:
        for call in self._hook_list.stage("before_train"):
            call()

    def after_train(self) -> None:
        """Let every hook clean up; the first error is raised once all have run."""
        self.storage.iter = self.iter
        errors: list[Exception] = []
        for call in self._hook_list.stage("after_train"):
            try:
                call()
            except Exception as e:
                logger.exception("after_train of %r failed:", getattr(call, "__self__", call))
                errors.append(e)
        if errors:
            raise errors[0]

    def before_step(self) -> None:
        self.storage.iter = self.iter
        for call in self._hook_list.stage("before_step"):
            call()

    def after_backward(self) -> None:
        for call in self._hook_list.stage("after_backward"):
            call()

    def after_step(self) -> None:
        for call in self._hook_list.stage("after_step"):
            call()

    def run_step(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no run_step; override it")

    def _keyed_hooks(self) -> Iterator[tuple[str, HookBase]]:
        """Hooks with their keys in a checkpoint: the class's name, `name#1` for its second one."""
        seen: dict[str, int] = {}
        for hook in self._hook_list:
            name = type(hook).__qualname__
            index = seen[name] = seen.get(name, -1) + 1
            yield (f"{name}#{index}" if index else name), hook

    def state_dict(self) -> dict[str, Any]:
        """`iteration`, and the states of the hooks that keep one, by class name."""
        states = {key: hook.state_dict() for key, hook in self._keyed_hooks()}
        states = {key: state for key, state in states.items() if state}
        return {"iteration": self.iter, **({"hooks": states} if states else {})}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; hooks that are not registered here are named in a warning."""
        self.iter = state_dict["iteration"]
        own = dict(self._keyed_hooks())
        for key, state in state_dict.get("hooks", {}).items():
            hook = own.get(key)
            load = getattr(hook, "load_state_dict", None)
            if load is None:
                logger.warning("Cannot find the hook %r, its state_dict is ignored.", key)
                continue
            load(state)
