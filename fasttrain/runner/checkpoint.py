"""Load weights into models and save checkpoints: mmengine's functions over the core's files."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from logging import WARNING, Logger
from typing import Any

from torch import nn

from fasttrain.core.checkpoint import is_url, local_copy_name, place_of
from fasttrain.dist import barrier, get_dist_info
from fasttrain.logging import print_log
from fasttrain.model.state_dicts import (
    _IncompatibleKeys,
    _save_to_state_dict,
    get_state_dict,
    load_state_dict,
    weights_to_cpu,
)
from fasttrain.runner.checkpoint_files import (
    PICKLED_CLASSES,
    find_intact_checkpoint,
    find_latest_checkpoint,
    no_pavi,
    read_checkpoint,
    save_checkpoint,
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
    "PICKLED_CLASSES",
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
        checkpoint = load_url(
            filename, model_dir=model_dir, map_location=map_location, progress=progress
        )
    if world_size > 1:
        barrier()
        if rank > 0:
            checkpoint = load_url(
                filename, model_dir=model_dir, map_location=map_location, progress=progress
            )
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
    raise ImportError(no_pavi(filename))


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
