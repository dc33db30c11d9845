"""Checkpointer: a model and other stateful parts to and from files in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fasttrain.core import checkpoint as files
from fasttrain.core import dist

logger = logging.getLogger("fasttrain.engine.checkpointer")

SUFFIX = ".pth"


class Restorable(Protocol):
    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DataParallel or DistributedDataParallel."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model


class Checkpointer:
    """Saves and loads a model with further parts (optimizer, trainer, ...).

    A file holds `model`, one entry per part and what `save` was given; the text file
    `last_checkpoint` names the newest one.

    Args:
        model: unwrapped when it is wrapped for several devices.
        save_dir: the folder; without one nothing is saved.
        save_to_disk: whether this process writes; by default only the main one.
        checkpointables: the further parts by name.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | os.PathLike[str] = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Restorable,
    ) -> None:
        self.model = unwrap(model)
        self.save_dir = os.fspath(save_dir)
        self.save_to_disk = dist.rank() == 0 if save_to_disk is None else save_to_disk
        self.checkpointables: dict[str, Restorable] = {}
        for name, part in checkpointables.items():
            self.add_checkpointable(name, part)

    def add_checkpointable(self, key: str, checkpointable: Restorable) -> None:
        """Save and load one more part under `key`.

        Raises:
            KeyError: the key is taken.
            TypeError: the part has no `state_dict`.
        """
        if key in self.checkpointables or key == "model":
            raise KeyError(f"the key {key!r} is used already in this Checkpointer")
        if not hasattr(checkpointable, "state_dict"):
            raise TypeError(f"{key} needs a state_dict method, got {type(checkpointable).__name__}")
        self.checkpointables[key] = checkpointable

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{save_dir}/{name}.pth`, then let `last_checkpoint` name it.

        Args:
            name: without the suffix.
            kwargs: further entries of the file.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        state = {"model": self.model.state_dict()}
        state |= {key: part.state_dict() for key, part in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}{SUFFIX}"
        logger.info("Saving checkpoint to %s", path)
        files.save(state | kwargs, path)
        self.tag_last_checkpoint(path.name)

    def load(self, path: str, checkpointables: Iterable[str] | None = None) -> dict[str, Any]:
        """Load a file into the model and the parts, and return what is left of it.

        Args:
            path: a file; nothing is loaded for an empty one.
            checkpointables: the parts to load; all when None.
        Raises:
            FileNotFoundError: there is no such file.
            fasttrain.core.checkpoint.CheckpointError: it is damaged or no checkpoint.
        """
        if not path:
            logger.info("No checkpoint found. Initializing model from scratch")
            return {}
        logger.info("Loading checkpoint from %s ...", path)
        content = files.load(path, "cpu")
        if not isinstance(content, dict):
            raise files.CheckpointError(
                f"{path} must hold a dict with the key 'model', got {type(content).__name__}"
            )
        if "model" not in content:  # a bare state dict
            content = {"model": content}
        self._load_model(content.pop("model"))
        wanted = self.checkpointables if checkpointables is None else list(checkpointables)
        for key in wanted:
            if key in content:
                logger.info("Loading %s from %s ...", key, path)
                self.checkpointables[key].load_state_dict(content.pop(key))
        return content

    def _load_model(self, weights: Mapping[str, Any]) -> None:
        weights = strip_prefix(
            {name: torch.as_tensor(value) for name, value in weights.items()}, "module."
        )
        own = self.model.state_dict()
        fitting, skipped = {}, []
        for name, value in weights.items():
            if name in own and own[name].shape != value.shape:
                skipped.append(
                    f"{name}: {tuple(value.shape)} in the file, {tuple(own[name].shape)}"
                )
            else:
                fitting[name] = value
        if skipped:
            logger.warning("Skipped weights whose shapes do not fit:\n  %s", "\n  ".join(skipped))
        result = self.model.load_state_dict(fitting, strict=False)
        missing = [key for key in result.missing_keys if key not in weights]
        if missing:
            logger.warning("Not in the checkpoint, left as they are:\n  %s", "\n  ".join(missing))
        if result.unexpected_keys:
            logger.warning(
                "In the checkpoint but not in the model:\n  %s", "\n  ".join(result.unexpected_keys)
            )

    def has_checkpoint(self) -> bool:
        """Whether the folder's `last_checkpoint` names a file."""
        return bool(self.save_dir) and files.read_pointer(self.save_dir) is not None

    def get_checkpoint_file(self) -> str:
        """The path of the newest checkpoint, empty without one."""
        pointed = files.read_pointer(self.save_dir) if self.save_dir else None
        return "" if pointed is None else os.path.join(self.save_dir, pointed)

    def get_all_checkpoint_files(self) -> list[str]:
        """All checkpoint files of the folder."""
        return sorted(map(str, files.checkpoint_files(self.save_dir, SUFFIX)))

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the folder's newest checkpoint with everything, else load `path`'s weights.

        Returns:
            as `load`.
        """
        if resume and self.has_checkpoint():
            path = self.get_checkpoint_file()
            rest = self.load(path)
            logger.info("Resumed model, %s", ", ".join(self.checkpointables) or "nothing else")
            return rest
        return self.load(path, checkpointables=[])

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let `last_checkpoint` name a file of the folder."""
        files.write_pointer(self.save_dir, last_filename_basename)


def strip_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take `prefix` off every name when all names have it."""
    if not weights or not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): value for name, value in weights.items()}
