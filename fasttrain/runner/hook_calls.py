"""RunnerHooks: the methods of a runner that register and call hooks."""

from __future__ import annotations

from typing import Any

from fasttrain.hooks.hook import Hook

from .hook_registry import describe_hooks, merged_default_hooks, register_hook
from .priority import Priority
from .views import RunnerViews


class RunnerHooks(RunnerViews):
    """Keeps the hooks in the order of their priorities and calls their stages."""

    def register_hook(
        self, hook: Hook | dict, priority: str | int | Priority | None = None
    ) -> None:
        """Register a hook; those of the same priority run in the order of registration.

        Args:
            hook: a hook or its config, which may have a `priority`.
            priority: goes before the config's, which goes before the class's own.
        """
        register_hook(self._hook_list, hook, priority)

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        """Register the default hooks.

        Args:
            hooks: changes of them by name: `runtime_info`, `timer`, `sampler_seed`, `logger`,
                `param_scheduler`, `checkpoint`, or further ones; None takes one out.
        """
        for hook in merged_default_hooks(hooks):
            self.register_hook(hook)

    def register_custom_hooks(self, hooks: list[Hook | dict]) -> None:
        """Register further hooks."""
        for hook in hooks:
            self.register_hook(hook)

    def register_hooks(
        self,
        default_hooks: dict[str, Hook | dict] | None = None,
        custom_hooks: list[Hook | dict] | None = None,
    ) -> None:
        """Register the default hooks, with changes, and further ones."""
        self.register_default_hooks(default_hooks)
        if custom_hooks is not None:
            self.register_custom_hooks(custom_hooks)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a stage of all hooks, in the order of their priorities.

        Args:
            fn_name: the stage, such as 'before_train_epoch'.
            kwargs: passed on to the hooks.
        """
        call: Any = None
        try:
            for call in self._hook_list.stage(fn_name):
                call(self, **kwargs)
        except TypeError as e:
            raise _with_hook(e, call) from e

    def get_hooks_info(self) -> str:
        """For each stage the hooks that do something then, in order."""
        return describe_hooks(self._hook_list)


def call_before_iter(runner: RunnerHooks, batch_idx: int, data_batch: Any) -> None:
    """`runner.call_hook('before_train_iter', ...)` without building dicts of its arguments."""
    if _overridden(runner):
        runner.call_hook("before_train_iter", batch_idx=batch_idx, data_batch=data_batch)
        return
    call: Any = None
    try:
        for call in runner._hook_list.stage("before_train_iter"):
            call(runner, batch_idx=batch_idx, data_batch=data_batch)
    except TypeError as e:
        raise _with_hook(e, call) from e


def call_after_iter(runner: RunnerHooks, batch_idx: int, data_batch: Any, outputs: Any) -> None:
    """`runner.call_hook('after_train_iter', ...)` without building dicts of its arguments."""
    if _overridden(runner):
        runner.call_hook(
            "after_train_iter", batch_idx=batch_idx, data_batch=data_batch, outputs=outputs
        )
        return
    call: Any = None
    try:
        for call in runner._hook_list.stage("after_train_iter"):
            call(runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
    except TypeError as e:
        raise _with_hook(e, call) from e


def _overridden(runner: RunnerHooks) -> bool:
    """Whether a subclass or the user put another `call_hook` in place."""
    own = getattr(type(runner), "call_hook", None)  # a stand-in for a runner has none
    return own is not RunnerHooks.call_hook or "call_hook" in runner.__dict__


def _with_hook(error: TypeError, call: Any) -> TypeError:
    """The error of a hook with the hook's name."""
    return TypeError(f"{error} in {getattr(call, '__self__', call)}")
