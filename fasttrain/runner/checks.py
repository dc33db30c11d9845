"""Checks of the runner's arguments that need nothing but the arguments."""

from __future__ import annotations

from typing import Any

from fasttrain.optim import _ParamScheduler


def check_group(end: str, **group: Any) -> None:
    """Raise unless all arguments of a group are given or none is.

    Args:
        end: closes the message.
    """
    given = [value is not None for value in group.values()]
    if any(given) and not all(given):
        *names, last = group
        values = ", ".join(f"{name}={value}" for name, value in group.items())
        raise ValueError(
            f"{', '.join(names)}, and {last} should be either all None or not None, "
            f"but got {values}{end}"
        )


def check_scheduler_cfg(param_scheduler: Any) -> None:
    """Raise when `param_scheduler` is no scheduler, no config of one, nor several of those."""
    if param_scheduler is None or isinstance(param_scheduler, _ParamScheduler):
        return
    if isinstance(param_scheduler, dict):
        check_scheduler_dict(param_scheduler)
    elif isinstance(param_scheduler, list | tuple):
        for scheduler in param_scheduler:
            if isinstance(scheduler, dict):
                assert "type" in scheduler, (
                    f"Each parameter scheduler should contain the key type, but got {scheduler}"
                )
            elif not isinstance(scheduler, _ParamScheduler):
                raise TypeError(_wrong_scheduler(scheduler))
    else:
        raise TypeError(_wrong_scheduler(param_scheduler))


def check_scheduler_dict(schedulers: dict[str, Any]) -> None:
    """A dict is one scheduler's config when it has a `type`, else it maps optimizers to theirs."""
    if "type" in schedulers:
        return
    for value in schedulers.values():
        assert isinstance(value, dict | list | tuple | _ParamScheduler), (
            "Each value of `param_scheduler` should be a dict or a list, "
            f"but got {value} with type {type(value)}"
        )


def _wrong_scheduler(value: Any) -> str:
    return (
        "`param_scheduler` should be a `_ParamScheduler`, `dict`, list or a tuple, but got "
        f"{type(value)}. If `param_scheduler` is a list of dict, it means a list of scheduler "
        "configs for single optimizer. If it is a dict and contains key `type`, it means a "
        "scheduler config for a single optimizer. If it does not contain key `type`, it means "
        "multiple lists of schedulers for multiple optimizers."
    )
