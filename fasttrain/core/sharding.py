"""Tensors that are spread over the ranks, as `torch.distributed.fsdp.fully_shard` leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Any) -> bool:
    """Whether ranks hold parts of one tensor (torch's DTensor)."""
    return callable(getattr(tensor, "full_tensor", None))


def any_sharded(tensors: Iterable[Any]) -> bool:
    """Whether one of them is: then all ranks must take part in loading, saving and norms."""
    return any(map(is_sharded, tensors))


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; a collective for one, and any other as it is."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return full


def help_gather(tensor: Tensor) -> None:
    """Do this rank's part while another one takes the whole of a tensor, and keep nothing."""
    whole(tensor)


def shard_like(tensor: Tensor, target: Any) -> Tensor:
    """A tensor that all ranks have, spread as `target` is; unchanged where that fits not.

    A collective when `target` is sharded: the ranks take their parts of what rank 0 has.
    """
    if not is_sharded(target) or is_sharded(tensor) or tensor.shape != target.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    moved = tensor.detach().to(target.device)
    return distribute_tensor(moved, target.device_mesh, target.placements)


def shard_weights(weights: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Whole weights, spread as the tensors of the same names in a model's `own` state dict are."""
    return {
        name: shard_like(value, own.get(name)) if isinstance(value, Tensor) else value
        for name, value in weights.items()
    }


def shard_optimizer_state(
    optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]
) -> dict[str, Any]:
    """A whole state of an optimizer, spread as its parameters are; the same where none is."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    if not any_sharded(params):
        return state_dict
    places = [place for group in state_dict["param_groups"] for place in group["params"]]
    param_at = dict(zip(places, params, strict=False))
    spread = {
        place: shard_weights(entry, dict.fromkeys(entry, param_at.get(place)))
        for place, entry in state_dict["state"].items()
    }
    return {**state_dict, "state": spread}
