"""Checkpointer: a model and other stateful parts to files in a folder, and back."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from fasttrain.core import checkpoint as files
from fasttrain.core import dist
from fasttrain.core.sharding import any_sharded
from fasttrain.engine.model_modes import unwrap

logger = logging.getLogger("fasttrain.engine.checkpointer")

SUFFIX = ".pth"


class Restorable(Protocol):
    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


class Checkpointer:
    """Saves and loads a model with further parts (optimizer, trainer, ...).

    A file holds `model`, one entry per part and what `save` was given; the text file
    `last_checkpoint` names the newest one. `save` returns when the file is durable, except while
    `in_background` is set, as the checkpointing hooks do in training: then it takes a snapshot and
    returns, the file is written while training goes on, and an error of that comes out at the next
    `save` or `drain`. Every method that looks at the folder drains first.

    Args:
        model: unwrapped when it is wrapped for several devices.
        save_dir: the folder; without one nothing is saved.
        save_to_disk: whether this process writes; by default only the main one.
        checkpointables: the further parts by name.

    Attributes:
        in_background: whether `save` leaves the writing to a thread.
        restored: the names of the parts that the last `load` found, `model` first.
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
        self.in_background = False
        self.restored: list[str] = []
        self._writer = files.Writer()
        self._newest = _Saving(finished=True)
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
        Raises:
            CheckpointError: this save failed, or an earlier one did and this one was not begun.
            NotImplementedError: the parameters are spread over several processes.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        if dist.world_size() > 1 and any_sharded(self.model.parameters()):
            raise NotImplementedError(
                "the main process saves alone here, and cannot gather parameters that are spread "
                "over the processes (fully_shard): train such a model by fasttrain.runner.Runner "
                "with model_wrapper_cfg=dict(type='fully_shard')"
            )
        state = {"model": self.model.state_dict()}
        state |= {key: part.state_dict() for key, part in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}{SUFFIX}"
        logger.info("Saving checkpoint to %s", path)
        saving = _Saving()

        def saved() -> None:
            self._tag(path.name)
            saving.finish()

        optimizers = [getattr(part, "optimizer", part) for part in self.checkpointables.values()]
        self._writer.submit(
            state | kwargs,
            path,
            on_saved=saved,
            updated_by=[part for part in optimizers if isinstance(part, Optimizer)],
        )
        self._newest = saving
        if not self.in_background:
            self.drain()

    def when_saved(self, call: Callable[[], None]) -> None:
        """Call a function once the newest save is durable: at once when it is, never if it failed.

        It may be called in the writing thread.
        """
        self._newest.then(call)

    def drain(self) -> None:
        """Wait until every save is finished.

        Raises:
            CheckpointError: one failed; names the file and the cause.
        """
        self._writer.drain()

    def load(self, path: str, checkpointables: Iterable[str] | None = None) -> dict[str, Any]:
        """Load a file into the model and the parts, and return what is left of it.

        Args:
            path: a file; nothing is loaded for an empty one.
            checkpointables: the parts to load; all when None.
        Raises:
            FileNotFoundError: there is no such file.
            fasttrain.core.checkpoint.CheckpointError: it is damaged or no checkpoint.
        """
        self.restored = []
        if not path:
            logger.info("No checkpoint found. Initializing model from scratch")
            return {}
        self.drain()
        logger.info("Loading checkpoint from %s ...", path)
        content = files.load(path, "cpu")
        if not isinstance(content, dict):
            raise files.CheckpointError(
                f"{path} must hold a dict with the key 'model', got {type(content).__name__}"
            )
        if "model" not in content:  # a bare state dict
            content = {"model": content}
        self._load_model(content.pop("model"))
        self.restored.append("model")
        wanted = self.checkpointables if checkpointables is None else list(checkpointables)
        for key in wanted:
            if key in content:
                logger.info("Loading %s from %s ...", key, path)
                self.checkpointables[key].load_state_dict(content.pop(key))
                self.restored.append(key)
        return content

    def _load_model(self, weights: Mapping[str, Any]) -> None:
        weights = strip_prefix(
            {name: torch.as_tensor(value) for name, value in weights.items()}, "module."
        )
        own = self.model.state_dict()
        fitting, skipped = {}, []
        for name, value in weights.items():
            if name not in own or is_lazy(own[name]):  # a lazy one takes the shape of the file's
                fitting[name] = value
            elif own[name].shape != value.shape:
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
        return self._pointed() is not None

    def _pointed(self) -> Path | None:
        """The file that `last_checkpoint` names, in the folder as it is called now."""
        if not self.save_dir:
            return None
        self.drain()
        name = files.read_pointer(self.save_dir)
        return None if name is None else Path(self.save_dir, Path(name).name)

    def get_checkpoint_file(self) -> str:
        """The path of the newest checkpoint, empty without one."""
        return str(self._pointed() or "")

    def get_all_checkpoint_files(self) -> list[str]:
        """All checkpoint files of the folder."""
        self.drain()
        return sorted(map(str, files.checkpoint_files(self.save_dir, SUFFIX)))

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the folder's newest checkpoint with everything, else load `path`'s weights.

        The newest file is verified to the last byte; when it is damaged, the newest intact file
        that holds all parts takes its place, and the log says so.

        Returns:
            as `load`.
        Raises:
            CheckpointError: the folder has checkpoints but none is intact.
        """
        pointed = self._pointed() if resume else None
        if pointed is None:
            return self.load(path, checkpointables=[])
        found = files.newest_intact(
            self.save_dir,
            lambda candidate: self._unfit(candidate, pointed),
            pointed=str(pointed),
            suffix=SUFFIX,
        )
        if found is None:
            raise files.CheckpointError(
                f"{self.save_dir} has no intact checkpoint to resume from (its last_checkpoint "
                f"names {pointed.name!r}); start without resuming, or in another folder"
            )
        rest = self.load(str(found))
        logger.info("Restored %s from %s", ", ".join(self.restored), found)
        lacking = [key for key in self.checkpointables if key not in self.restored]
        if lacking:
            logger.warning("%s holds no %s: left as they are", found, ", ".join(lacking))
        return rest

    def _unfit(self, candidate: Path, pointed: Path) -> str | None:
        """Why a file cannot be resumed from, None when it can."""
        damage = files.damage(candidate)
        if damage is not None or candidate == pointed:
            return damage
        content = files.load(candidate, "cpu", mmap=True)
        held = content.keys() if isinstance(content, dict) else set()
        lacking = {"model", *self.checkpointables} - held
        return f"it holds no {', '.join(sorted(lacking))}" if lacking else None

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let `last_checkpoint` name a file of the folder."""
        self.drain()
        self._tag(last_filename_basename)

    def _tag(self, basename: str) -> None:
        files.write_pointer(self.save_dir, basename)


class _Saving:
    """One save: whether it is durable yet, and what is to be done once it is."""

    def __init__(self, *, finished: bool = False) -> None:
        self._lock = threading.Lock()
        self._finished = finished
        self._calls: list[Callable[[], None]] = []

    def then(self, call: Callable[[], None]) -> None:
        with self._lock:
            if not self._finished:
                self._calls.append(call)
                return
        call()

    def finish(self) -> None:
        with self._lock:
            self._finished = True
            calls, self._calls = self._calls, []
        for call in calls:
            call()


def strip_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take `prefix` off every name when all names have it."""
    if not weights or not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): value for name, value in weights.items()}
