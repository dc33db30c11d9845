"""Build optimizer wrappers and parameter schedulers, and scale learning rates to the batch size."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from fasttrain.logging import print_log
from fasttrain.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from fasttrain.optim import build_optim_wrapper as build_from_model
from fasttrain.registry import OPTIM_WRAPPERS, PARAM_SCHEDULERS

Schedulers = list[_ParamScheduler] | dict[str, list[_ParamScheduler]]


def build_optim_wrapper(model: nn.Module, optim_wrapper: Any) -> OptimWrapper | OptimWrapperDict:
    """Build the wrapper of a model's optimizer, or of several of its optimizers.

    Args:
        model: whose parameters are optimized.
        optim_wrapper: a wrapper, which is returned; the config of one, whose `optimizer` is a
            config or an optimizer; or a dict of built wrappers.
    """
    if isinstance(optim_wrapper, OptimWrapper | OptimWrapperDict):
        return optim_wrapper
    if not isinstance(optim_wrapper, dict):
        raise TypeError(
            f"optimizer wrapper should be an OptimWrapper object or dict, but got {optim_wrapper}"
        )
    optimizer = optim_wrapper.get("optimizer")
    if isinstance(optimizer, Optimizer):
        options = dict(optim_wrapper)
        options.setdefault("type", "OptimWrapper")
        return OPTIM_WRAPPERS.build(options)
    if optimizer is not None or "constructor" in optim_wrapper:
        return build_from_model(model, optim_wrapper)
    for name, wrapper in optim_wrapper.items():
        if not isinstance(wrapper, OptimWrapper):
            raise ValueError(
                'each item mush be an optimizer object when "type" and "constructor" are not in '
                f"optimizer, but got {name}={wrapper}"
            )
    return OptimWrapperDict(**optim_wrapper)


def build_schedulers(
    given: Any,
    optim_wrapper: OptimWrapper | OptimWrapperDict,
    build: Callable[[Any, OptimWrapper], list[_ParamScheduler]],
) -> Schedulers:
    """Build the schedulers of one optimizer as a list, of several as a dict of lists.

    Args:
        given: schedulers or configs; for several optimizers either one dict of them by name, or
            what each of them gets.
        optim_wrapper: the wrapper, or the wrappers by name.
        build: makes the list for one optimizer.
    """
    if not isinstance(optim_wrapper, OptimWrapperDict):
        return build(given, optim_wrapper)
    by_name = isinstance(given, dict) and "type" not in given
    schedulers = {}
    for name, wrapper in optim_wrapper.items():
        if by_name and name not in given:
            raise KeyError(
                f"param_scheduler has no schedulers for the optimizer {name!r}; "
                f"it has them for {list(given)}"
            )
        schedulers[name] = build(given[name] if by_name else given, wrapper)
    return schedulers


def schedulers_of_config(
    given: Any,
    optim_wrapper: OptimWrapper,
    *,
    epoch_length: int,
    max_epochs: int,
    max_iters: int,
) -> list[_ParamScheduler]:
    """Build the schedulers of one optimizer.

    Args:
        given: a scheduler, a config, or several of either.
        epoch_length: iterations per epoch, for `convert_to_iter_based`.
        max_epochs, max_iters: the default `end` of by-epoch and by-iteration schedulers.
    """
    schedulers = []
    for scheduler in given if isinstance(given, list | tuple) else [given]:
        if isinstance(scheduler, _ParamScheduler):
            schedulers.append(scheduler)
        elif isinstance(scheduler, dict):
            options = dict(scheduler)
            if "end" not in options:
                options["end"] = max_epochs if options.get("by_epoch", True) else max_iters
                print_log(
                    f"The `end` of {options.get('type')} is not set. "
                    "Use the max epochs/iters of train loop as default.",
                    logger="current",
                    level=logging.INFO,
                )
            if options.get("convert_to_iter_based"):
                options["epoch_length"] = epoch_length
            schedulers.append(
                PARAM_SCHEDULERS.build(options, default_args={"optimizer": optim_wrapper})
            )
        else:
            raise TypeError(
                f"scheduler should be a _ParamScheduler object or dict, but got {scheduler}"
            )
    return schedulers


def scale_lr(
    optim_wrapper: Any, auto_scale_lr: dict | None, real_batch_size: Callable[[], int]
) -> None:
    """Multiply learning rates by the ratio of the real batch size to the one they were made for.

    Args:
        optim_wrapper: changed in place.
        auto_scale_lr: `enable` and `base_batch_size`; nothing happens unless enabled.
        real_batch_size: tells the samples per iteration over all ranks.
    """
    if auto_scale_lr is None or not auto_scale_lr.get("enable", False):
        return
    assert "base_batch_size" in auto_scale_lr, "Lack of `base_batch_size` in `auto_scale_lr`."
    base, real = auto_scale_lr["base_batch_size"], real_batch_size()
    ratio = float(real) / float(base)
    print_log(
        f"LR is set based on batch size of {base} and the current batch size is {real}. "
        f"Scaling the original LR by {ratio}.",
        logger="current",
        level=logging.INFO,
    )
    assert isinstance(optim_wrapper, OptimWrapper | OptimWrapperDict), (
        "`scale_lr should be called after building OptimWrapper"
    )
    wrappers = (
        list(optim_wrapper.values())
        if isinstance(optim_wrapper, OptimWrapperDict)
        else [optim_wrapper]
    )
    for wrapper in wrappers:
        for group in wrapper.optimizer.param_groups:
            group["lr"] = group["lr"] * ratio
