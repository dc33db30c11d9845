"""Weights of a model that is an ensemble of others: a file for each member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from fasttrain.engine.checkpointer import Checkpointer
from fasttrain.engine.model_modes import unwrap


def load_members(model: nn.Module, weights: Sequence[str]) -> None:
    """Load `weights[i]` into `model.members[i]`; empty names are left out.

    Args:
        model: offers `members`, the models that it stands for (see `protocols.EnsembleModel`).
        weights: checkpoint files, as `MODEL.ENSEMBLE_WEIGHTS` names them.
    Raises:
        TypeError: the model has no members.
        ValueError: there is not one file for each of them.
    """
    paths = [path for path in weights if path]
    if not paths:
        return
    bare: Any = unwrap(model)
    members = getattr(bare, "members", None)
    if members is None:
        raise TypeError(
            f"MODEL.ENSEMBLE_WEIGHTS names {len(paths)} files, but {type(bare).__name__} has no "
            "members to load them into; give it an nn.ModuleList called members"
        )
    if len(members) != len(paths):
        raise ValueError(
            f"MODEL.ENSEMBLE_WEIGHTS must name a file for each of the {len(members)} members of "
            f"{type(bare).__name__}, got {len(paths)}"
        )
    for member, path in zip(members, paths, strict=True):
        Checkpointer(member).load(path, checkpointables=[])
