"""What a checkpoint of a run holds, and the checks when a run is resumed from one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from logging import Logger
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasttrain.config import Config
from fasttrain.core.checkpoint import plain_tree
from fasttrain.core.sharding import shard_like, whole
from fasttrain.optim import OptimWrapper, OptimWrapperDict
from fasttrain.optim.optimizer.optimizer_wrapper import SUMS
from fasttrain.version import __version__

# Top-level entry for what only this package's runs need; other readers ignore it.
OWN_STATE = "fasttrain"
# Readers of mmengine's layout look for this entry to learn the layout's version.
LAYOUT_VERSION = "0.10.7"


def run_meta(meta: Mapping[str, Any], *, cfg_text: str, seed: int, name: str) -> dict[str, Any]:
    """The `meta` entry: what the caller gave and what describes the run."""
    return {
        **meta,
        "cfg": cfg_text,
        "seed": seed,
        "experiment_name": name,
        "time": time.strftime("%Y%m%d_%H%M%S", time.localtime()),
        "mmengine_version": LAYOUT_VERSION,
        "fasttrain_version": __version__,
    }


def savable(entries: Mapping[str, Any], label: str, logger: Logger) -> dict[str, Any]:
    """The entries that a checkpoint can hold, plain; the others are named in a warning.

    For what a run collects by the way: an odd object in it must not end a long training.
    """
    kept, refused = _plain_entries(entries)
    for key, error in refused.items():
        logger.warning(f"{label}[{key!r}] is left out of the checkpoint: {error}")
    return kept


def _plain_entries(
    entries: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, TypeError | ValueError]]:
    kept: dict[str, Any] = {}
    refused: dict[str, TypeError | ValueError] = {}
    for key, value in entries.items():
        try:
            kept[key] = plain_tree(value, lambda tensor: tensor)
        except (TypeError, ValueError) as error:
            refused[key] = error
    return kept, refused


def optimizer_state(optim_wrapper: Any) -> dict[str, Any]:
    """The state of the optimizer wrapper."""
    if isinstance(optim_wrapper, OptimWrapper | OptimWrapperDict):
        return optim_wrapper.state_dict()
    raise TypeError(
        "self.optim_wrapper should be an `OptimWrapper` or `OptimWrapperDict` instance, but got "
        f"{optim_wrapper}"
    )


def _named_wrappers(optim_wrapper: Any) -> Mapping[str, Any]:
    """The wrappers in a dict of them, or the one there is by the name ''."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return dict(optim_wrapper.items())
    return {"": optim_wrapper}


def optimizers_of(optim_wrapper: Any) -> list[torch.optim.Optimizer]:
    """The optimizers behind one wrapper or several."""
    wrappers = _named_wrappers(optim_wrapper).values()
    return [wrapper.optimizer for wrapper in wrappers if isinstance(wrapper, OptimWrapper)]


def longest_group(optim_wrapper: Any) -> int:
    """How many iterations pass, at the most, from one reduction of gradients to the next."""
    wrappers = _named_wrappers(optim_wrapper).values()
    return max(getattr(wrapper, "_accumulative_counts", 1) for wrapper in wrappers)


def scheduler_states(schedulers: Any) -> Any:
    """The states of the schedulers: a list, or a dict of lists for several optimizers."""
    if isinstance(schedulers, dict):
        return {name: scheduler_states(group) for name, group in schedulers.items()}
    return [scheduler.state_dict() for scheduler in schedulers]


def load_scheduler_states(schedulers: Any, states: Any, logger: Logger) -> None:
    """Give schedulers the states that `scheduler_states` returned."""
    if isinstance(schedulers, dict):
        for name, group in schedulers.items():
            load_scheduler_states(group, states[name], logger)
        return
    if len(schedulers) != len(states):
        logger.warning(
            f"The checkpoint holds the states of {len(states)} parameter schedulers, this run has "
            f"{len(schedulers)}; they are resumed in order, the others start anew."
        )
    for scheduler, state in zip(schedulers, states, strict=False):
        scheduler.load_state_dict(state)
        # The steps before the checkpoint count: a scheduler's first step here is not too early.
        counted = scheduler.optimizer
        counted._global_step = max(getattr(counted, "_global_step", 0), 0)


# Where a gradient belongs: (its parameter's name,), or (name of the wrapper, position of the
# parameter in its optimizer) for a float32 sum.
Pending = dict[tuple[Any, ...], Tensor]


def pending_gradients(model: nn.Module, optim_wrapper: Any) -> Pending | None:
    """What an accumulation group that is cut midway has summed up so far; None between groups."""
    wrappers = _named_wrappers(optim_wrapper)
    cut = any(
        getattr(wrapper, "_accumulative_counts", 1) > 1 and not wrapper.should_update()
        for wrapper in wrappers.values()
    )
    if not cut:
        return None
    found: Pending = {
        (name,): whole(parameter.grad)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    for name, wrapper in wrappers.items():
        sums = wrapper.state_dict().get(SUMS, {})
        found |= {(name, index): total for index, total in sums.items()}
    return found


def split_pending(pending: Pending) -> tuple[dict[str, Tensor], Pending]:
    """The gradients by their parameters' names, and the float32 sums as they were."""
    gradients = {place[0]: tensor for place, tensor in pending.items() if len(place) == 1}
    return gradients, {place: tensor for place, tensor in pending.items() if len(place) > 1}


def put_sums(state: dict[str, Any], sums: Pending) -> None:
    """Let float32 sums take the place of those in a state that `optimizer_state` returned."""
    for (name, index), total in sums.items():
        (state[name] if name else state).setdefault(SUMS, {})[index] = total


def load_pending_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Put gradients back, each by its parameter's name."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            gradient = gradients[name].to(parameter.device)
            parameter.grad = shard_like(gradient, parameter)


def check_world_size(
    meta: Mapping[str, Any], world_size: int, auto_scale_lr: Any, logger: Logger
) -> None:
    """Refuse to go on with another number of processes than the checkpoint's config names.

    Raises:
        RuntimeError: the number differs and learning rates are not scaled automatically.
    """
    if not isinstance(meta.get("cfg"), str):
        return
    gpu_ids = Config.fromstring(meta["cfg"], file_format=".py").get("gpu_ids", None)
    if not gpu_ids or len(gpu_ids) == world_size:
        return
    if auto_scale_lr is None or not auto_scale_lr.get("enable", False):
        raise RuntimeError(
            "Number of GPUs used for current experiment is not consistent with the checkpoint "
            f"being resumed from: it was saved with {len(gpu_ids)}, this run has {world_size}. "
            "The learning rate would not fit the batch size; set `auto_scale_lr` with "
            '`auto_scale_lr["enable"]=True`, or start with as many processes.'
        )
    logger.info(
        "Number of GPU used for current experiment is not consistent with resuming from "
        "checkpoint but the leaning rate will be adjusted according to the setting in "
        f"auto_scale_lr={auto_scale_lr}"
    )


def warn_of_other_dataset(meta: Mapping[str, Any], dataset: Any, logger: Logger) -> None:
    """Warn when the checkpoint was trained on a dataset of another description."""
    saved, present = meta.get("dataset_meta"), getattr(dataset, "metainfo", None)
    if isinstance(present, Mapping):
        present = _plain_entries(present)[0]
    if saved is not None and present is not None and not same(saved, present):
        logger.warning(
            "The dataset metainfo from the resumed checkpoint is different from the current "
            "training dataset, please check the correctness of the checkpoint or the training "
            "dataset."
        )


def same(left: Any, right: Any) -> bool:
    """Whether two nested values are equal; arrays and tensors by content, tuples like lists."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray | Tensor) or isinstance(right, np.ndarray | Tensor):
        return np.array_equal(_array(left), _array(right))
    return bool(left == right)


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
