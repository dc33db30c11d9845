"""Load weights into models and save checkpoints: mmengine's functions over the core's files."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from logging import WARNING, Logger
from typing import Any

import numpy as np
import torch
from torch import nn

from fasttrain.core.checkpoint import (
    PickledObject,
    Writer,
    damage,
    is_url,
    load,
    local_copy_name,
    newest_intact,
    place_of,
    read_pointer,
    save,
)
from fasttrain.dist import barrier, get_dist_info
from fasttrain.logging import print_log
from fasttrain.model.state_dicts import (
    _IncompatibleKeys,
    _save_to_state_dict,
    get_state_dict,
    load_state_dict,
    weights_to_cpu,
)
from fasttrain.runner.model_zoo import (
    DEFAULT_CACHE_DIR,
    ENV_MMENGINE_HOME,
    ENV_XDG_CACHE_HOME,
    _get_mmengine_home,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

__all__ = [
    "DEFAULT_CACHE_DIR",
    "ENV_MMENGINE_HOME",
    "ENV_XDG_CACHE_HOME",
    "CheckpointLoader",
    "_IncompatibleKeys",
    "_get_mmengine_home",
    "_load_checkpoint",
    "_load_checkpoint_to_model",
    "_load_checkpoint_with_prefix",
    "_save_to_state_dict",
    "find_intact_checkpoint",
    "find_latest_checkpoint",
    "get_deprecated_model_names",
    "get_external_models",
    "get_mmcls_models",
    "get_state_dict",
    "get_torchvision_models",
    "load_checkpoint",
    "load_state_dict",
    "read_checkpoint",
    "save_checkpoint",
    "weights_to_cpu",
]

ReviseKeys = Sequence[tuple[str, str]]
STRIP_MODULE: list[tuple[str, str]] = [(r"^module\.", "")]


class PickledHistory(PickledObject):
    """A pickled `HistoryBuffer` of mmengine: its two arrays become the buffer's plain state."""

    __slots__ = ()

    def plain(self) -> dict[str, Any]:
        values = np.asarray(self.attributes["_log_history"])
        counts = np.asarray(self.attributes["_count_history"])
        return {
            "values": torch.from_numpy(values.astype(np.float64)),
            "counts": torch.from_numpy(counts.astype(np.float64)),
            "total": len(values),
            "max_length": int(self.attributes.get("max_length", 1_000_000)),
            "integral": values.dtype.kind in "biu",
        }


PICKLED_CLASSES: dict[str, type[PickledObject]] = {
    "mmengine.logging.history_buffer.HistoryBuffer": PickledHistory,
    "fasttrain.logging.history_buffer.HistoryBuffer": PickledHistory,
}


def read_checkpoint(
    filename: str | os.PathLike[str], map_location: Any = None, *, weights_only: bool = True
) -> Any:
    """Read a checkpoint file without running code; `weights_only=False` unpickles freely.

    Tensors keep the device that the file tells (`map_location=None`) as with `torch.load`.
    """
    return load(filename, map_location, weights_only=weights_only, classes=PICKLED_CLASSES)


class CheckpointLoader:
    """Finds, by the prefix of a path, the function that reads a checkpoint from there."""

    _schemes: OrderedDict[str, Callable[..., Any]] = OrderedDict()

    @classmethod
    def _register_scheme(
        cls, prefixes: str | Sequence[str], loader: Callable[..., Any], force: bool = False
    ) -> None:
        for prefix in [prefixes] if isinstance(prefixes, str) else prefixes:
            if prefix in cls._schemes and not force:
                raise KeyError(
                    f"{prefix} is already registered as a loader backend, "
                    'add "force=True" if you want to override it'
                )
            cls._schemes[prefix] = loader
        # The longest prefixes of a family and the empty one of local paths come out right so.
        cls._schemes = OrderedDict(sorted(cls._schemes.items(), reverse=True))

    @classmethod
    def register_scheme(
        cls,
        prefixes: str | Sequence[str],
        loader: Callable[..., Any] | None = None,
        force: bool = False,
    ) -> Any:
        """Register `loader(filename, map_location)` for paths that start with one of `prefixes`.

        Prefixes are regular expressions. Without `loader` it is a decorator.
        """
        if loader is not None:
            cls._register_scheme(prefixes, loader, force=force)
            return None

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            cls._register_scheme(prefixes, function, force=force)
            return function

        return register

    @classmethod
    def _get_checkpoint_loader(cls, path: str) -> Callable[..., Any]:
        for prefix, loader in cls._schemes.items():
            if re.match(prefix, path) is not None:
                return loader
        raise ValueError(f"no loader is registered for {path!r}; have {list(cls._schemes)}")

    @classmethod
    def load_checkpoint(
        cls, filename: str, map_location: Any = None, logger: Logger | str | None = "current"
    ) -> Any:
        """Read the checkpoint that `filename` names through the loader of its prefix."""
        filename = os.fspath(filename)
        loader = cls._get_checkpoint_loader(filename)
        kind = loader.__name__.removeprefix("load_from_")
        print_log(f"Loads checkpoint by {kind} backend from path: {filename}", logger=logger)
        return loader(filename, map_location)


@CheckpointLoader.register_scheme(prefixes="")
def load_from_local(filename: str, map_location: Any) -> Any:
    """Read a local file; any URL without a scheme of its own goes through fsspec."""
    if is_url(filename):
        return load_from_fsspec(filename, map_location)
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f"{filename} can not be found.")
    return read_checkpoint(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=("http://", "https://"))
def load_from_http(
    filename: str, map_location: Any = None, model_dir: str | None = None, progress: bool = False
) -> Any:
    """Download a file once a machine (cached in torch's hub folder), then read it on every rank."""
    rank, world_size = get_dist_info()
    if rank == 0:
        checkpoint = load_url(filename, model_dir, map_location, progress)
    if world_size > 1:
        barrier()
        if rank > 0:
            checkpoint = load_url(filename, model_dir, map_location, progress)
    return checkpoint


def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = False
) -> Any:
    """Read the file of a URL, downloaded into `model_dir` when it is not there yet."""
    from torch import hub

    folder = model_dir or os.path.join(hub.get_dir(), "checkpoints")
    path = os.path.join(folder, os.path.basename(url.partition("?")[0]))
    if not os.path.isfile(path):
        os.makedirs(folder, exist_ok=True)
        print_log(f'Downloading: "{url}" to {path}', logger="current")
        try:
            hub.download_url_to_file(url, path, progress=progress)
        except OSError as error:
            raise type(error)(
                f"could not download {url!r} ({error}); without a network, put the file at {path!r}"
            ) from error
    return read_checkpoint(path, map_location)


@CheckpointLoader.register_scheme(prefixes=("pavi://",))
def load_from_pavi(filename: str, map_location: Any = None) -> Any:
    """The service is closed; the scheme is known so that old configs get a clear error."""
    raise ImportError(
        f"Please install pavi to load checkpoint from modelcloud. The service behind {filename!r} "
        "is not public; give a path or a URL"
    )


@CheckpointLoader.register_scheme(prefixes=(r"(\S+\:)?s3://", r"(\S+\:)?petrel://"))
def load_from_ceph(filename: str, map_location: Any = None, backend: str = "petrel") -> Any:
    """Read from an object store through fsspec (needs s3fs)."""
    return load_from_fsspec(filename, map_location)


def load_from_fsspec(filename: str, map_location: Any = None) -> Any:
    """Read from any URL through fsspec."""
    copy = local_copy_name(filename)
    try:
        place_of(filename).get_file(filename, copy)
        return read_checkpoint(copy, map_location)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{filename} can not be found.") from error
    finally:
        os.remove(copy)


@CheckpointLoader.register_scheme(prefixes=("modelzoo://", "torchvision://"))
def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Read weights that torchvision publishes, by model name."""
    models = get_torchvision_models()
    if filename.startswith("modelzoo://"):
        print_log(
            'The URL scheme of "modelzoo://" is deprecated, please use "torchvision://" instead',
            logger="current",
            level=WARNING,
        )
    name = filename.partition("://")[2]
    return load_from_http(_look_up(models, name, filename), map_location=map_location)


@CheckpointLoader.register_scheme(prefixes=("open-mmlab://", "openmmlab://"))
def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Read weights that OpenMMLab publishes, or that `open_mmlab.json` lists, by name."""
    prefix, _, name = filename.partition("://")
    renamed = get_deprecated_model_names()
    if name in renamed:
        print_log(
            f"{prefix}://{name} is deprecated in favor of {prefix}://{renamed[name]}",
            logger="current",
            level=WARNING,
        )
        name = renamed[name]
    url = _look_up(get_external_models(), name, filename)
    if url.startswith(("http://", "https://")):
        return load_from_http(url, map_location=map_location)
    return load_from_local(os.path.join(_get_mmengine_home(), url), map_location)


@CheckpointLoader.register_scheme(prefixes="mmcls://")
def load_from_mmcls(filename: str, map_location: Any = None) -> Any:
    """Read backbone weights that mmcls publishes, by name."""
    url = _look_up(get_mmcls_models(), filename.partition("://")[2], filename)
    return _process_mmcls_checkpoint(load_from_http(url, map_location=map_location))


def _process_mmcls_checkpoint(checkpoint: Any) -> dict[str, Any]:
    """The backbone's weights alone, without their prefix, as a checkpoint of its own."""
    weights = checkpoint.get("state_dict", checkpoint)
    prefix = "backbone."
    backbone = OrderedDict(
        (key[len(prefix) :], value) for key, value in weights.items() if key.startswith(prefix)
    )
    return {"state_dict": backbone}


def _look_up(models: dict[str, str], name: str, filename: str) -> str:
    if name not in models:
        from difflib import get_close_matches

        near = get_close_matches(name, models, n=3)
        hint = f"; did you mean one of {near}?" if near else ""
        raise KeyError(f"{filename} names no published model{hint}")
    return models[name]


def _load_checkpoint(
    filename: str, map_location: Any = None, logger: Logger | str | None = None
) -> Any:
    """Read a checkpoint from a path, a URL or the name of a published model."""
    return CheckpointLoader.load_checkpoint(filename, map_location, logger)


def _load_checkpoint_with_prefix(
    prefix: str, filename: str, map_location: Any = None
) -> dict[str, Any]:
    """The weights below `prefix` of a checkpoint, without that prefix.

    Raises:
        AssertionError: no key starts with the prefix.
    """
    checkpoint = _load_checkpoint(filename, map_location=map_location)
    weights = checkpoint.get("state_dict", checkpoint)
    prefix = prefix if prefix.endswith(".") else f"{prefix}."
    chosen = {k[len(prefix) :]: value for k, value in weights.items() if k.startswith(prefix)}
    assert chosen, f"{prefix} is not in the pretrained model"
    return chosen


def _load_checkpoint_to_model(
    model: nn.Module,
    checkpoint: Any,
    strict: bool = False,
    logger: Logger | str | None = None,
    revise_keys: ReviseKeys = STRIP_MODULE,
) -> Any:
    """Load a checkpoint that was read already; bare weights and detectron2's layout will do."""
    weights: Any = checkpoint
    for key in ("state_dict", "model"):
        if isinstance(checkpoint.get(key), dict):
            weights = checkpoint[key]
            break
    metadata = getattr(weights, "_metadata", OrderedDict())
    for pattern, replacement in revise_keys:
        weights = OrderedDict(
            (re.sub(pattern, replacement, key), value) for key, value in weights.items()
        )
    if not isinstance(weights, OrderedDict):
        weights = OrderedDict(weights)
    weights._metadata = metadata
    load_state_dict(model, weights, strict, logger)
    return checkpoint


def load_checkpoint(
    model: nn.Module,
    filename: str,
    map_location: Any = None,
    strict: bool = False,
    logger: Logger | str | None = None,
    revise_keys: ReviseKeys = STRIP_MODULE,
) -> Any:
    """Load weights from a path, a URL or the name of a published model into `model`.

    Args:
        model: receives the weights.
        filename: a path, `http(s)://`, `s3://`, `torchvision://`, `open-mmlab://`, `mmcls://`, ...
        map_location: as `torch.load` takes it.
        strict: whether keys and shapes that do not match are an error.
        logger: where the mismatch report goes.
        revise_keys: (pattern, replacement) pairs of regular expressions applied to the keys.

    Returns:
        The whole checkpoint.

    Raises:
        RuntimeError: the file holds no dict, or `strict` and something does not match.
    """
    checkpoint = _load_checkpoint(filename, map_location, logger)
    if not isinstance(checkpoint, dict):
        raise RuntimeError(f"No state_dict found in checkpoint file {filename}")
    return _load_checkpoint_to_model(model, checkpoint, strict, logger, revise_keys)


def save_checkpoint(
    checkpoint: dict[str, Any],
    filename: str | os.PathLike[str],
    file_client_args: dict[str, Any] | None = None,
    backend_args: dict[str, Any] | None = None,
    *,
    writer: Writer | None = None,
    on_saved: Callable[[], None] = lambda: None,
    updated_by: Iterable[Any] = (),
) -> None:
    """Save a checkpoint to a path or a URL; a file under the final name is always whole.

    Args:
        checkpoint: what to save.
        filename: a path or a URL.
        file_client_args: old name of `backend_args`.
        backend_args: options of fsspec's file system.
        writer: saves in the background: this returns once the checkpoint may change again.
        on_saved: called once the file is durable; in the writer's thread if there is one.
        updated_by: the optimizers whose steps change the checkpoint's tensors.

    Raises:
        TypeError: an entry has no plain form; names it.
        OSError: the file could not be written; names it.
    """
    options = storage_options(file_client_args, backend_args)
    name = os.fspath(filename)
    if name.startswith("pavi://"):
        if options is not None:
            raise ValueError(
                '"file_client_args" or "backend_args" should be "None" '
                'if filename starts with "pavi://"'
            )
        load_from_pavi(name)
    target = local_copy_name(name) if is_url(name) else name

    def finish() -> None:
        if is_url(name):
            place_of(name, options).put_file(target, name)
            os.remove(target)
        on_saved()

    if writer is not None:
        writer.submit(checkpoint, target, on_saved=finish, updated_by=updated_by)
        return
    save(checkpoint, target)
    finish()


def storage_options(
    file_client_args: dict[str, Any] | None, backend_args: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The one of the two arguments that is set; the first is the old name of the second."""
    if file_client_args is not None:
        print_log(
            '"file_client_args" will be deprecated in future. Please use "backend_args" instead',
            logger="current",
            level=WARNING,
        )
        if backend_args is not None:
            raise ValueError(
                '"file_client_args" and "backend_args" cannot be set at the same time.'
            )
    return backend_args if file_client_args is None else file_client_args


def find_intact_checkpoint(path: str) -> str | None:
    """The checkpoint to resume a work folder from: the newest that is whole, None without one.

    The pointer file's comes first. When it is damaged or gone, the other periodic checkpoints
    beside it follow, newest first; each one passed over is named in a warning.
    """
    pointed = read_pointer(path)
    if pointed is not None and is_url(pointed):
        return pointed
    names = r"(epoch|iter)_\d+\.pth"
    if pointed is not None:
        names += "|" + re.sub(r"(?:\\?\d)+", r"\\d+", re.escape(os.path.basename(pointed)))
    folder = path if pointed is None else os.path.dirname(pointed)
    found = newest_intact(
        folder, damage, pointed=pointed, accepts=lambda name: re.fullmatch(names, name) is not None
    )
    if found is None:
        print_log("Did not find last_checkpoint to be resumed.", logger="current")
        return None
    return str(found)


def find_latest_checkpoint(path: str) -> str | None:
    """The newest checkpoint of a work folder by its pointer file, None when there is none."""
    found = read_pointer(path)
    if found is None:
        print_log("Did not find last_checkpoint to be resumed.", logger="current")
    return found
