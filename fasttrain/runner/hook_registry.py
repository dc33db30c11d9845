"""The hooks of a runner: building, registering, ordering and describing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fasttrain.core.hooks import HookList
from fasttrain.hooks.hook import Hook, is_noop
from fasttrain.registry import HOOKS

from .priority import Priority, get_priority

DEFAULT_HOOKS: Mapping[str, Mapping[str, Any]] = {
    "runtime_info": {"type": "RuntimeInfoHook"},
    "timer": {"type": "IterTimerHook"},
    "sampler_seed": {"type": "DistSamplerSeedHook"},
    "logger": {"type": "LoggerHook"},
    "param_scheduler": {"type": "ParamSchedulerHook"},
    "checkpoint": {"type": "CheckpointHook", "interval": 1},
}


def new_hook_list() -> HookList[Any]:
    """An empty list of hooks."""
    return HookList(is_noop)


def register_hook(hooks: HookList[Any], hook: Any, priority: int | str | Priority | None) -> None:
    """Build a hook if need be and put it in its place.

    Args:
        hook: a hook or its config, which may have a `priority`.
        priority: goes before the config's, which goes before the class's own.
    """
    if not isinstance(hook, Hook | dict):
        raise TypeError(f"hook should be an instance of Hook or dict, but got {hook}")
    if isinstance(hook, dict):
        options = dict(hook)
        own = options.pop("priority", None)
        priority = own if priority is None else priority
        hook = HOOKS.build(options)
    if priority is not None:
        get_priority(priority)  # raises before anything is changed
        hook.priority = priority
    hooks.add(hook, get_priority(hook.priority))


def merged_default_hooks(given: Mapping[str, Any] | None) -> list[Any]:
    """The default hooks with the user's changes: None takes one out, new names are added."""
    merged: dict[str, Any] = {name: dict(cfg) for name, cfg in DEFAULT_HOOKS.items()}
    for name, hook in (given or {}).items():
        if hook is None:
            merged.pop(name, None)
        else:
            merged[name] = hook
    return list(merged.values())


def describe_hooks(hooks: HookList[Any]) -> str:
    """For each stage the hooks that do something then, in order."""
    lines = []
    for stage in Hook.stages:
        active = [hook for hook in hooks if stage in hook.get_triggered_stages()]
        if not active:
            continue
        lines.append(f"{stage}:")
        for hook in active:
            number = get_priority(hook.priority)
            names = {member.value: member.name for member in Priority}
            lines.append(f"({names.get(number, str(number)):<12}) {type(hook).__name__:<35}")
        lines.append(" -------------------- ")
    return "\n".join(lines)
