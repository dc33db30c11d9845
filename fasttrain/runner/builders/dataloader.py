"""Build a dataloader from its config: dataset, samplers, collate function, workers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from fasttrain.config import Config
from fasttrain.core.worker_seed import BatchSeededInit
from fasttrain.dataset import worker_init_fn as default_worker_init_fn
from fasttrain.dist import get_rank, get_world_size
from fasttrain.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS

from ..utils import _get_batch_size


class _SlicedDataset:
    """The first `length` samples of a dataset; everything else is the dataset's own."""

    def __init__(self, dataset: Any, length: int) -> None:
        self._dataset = dataset
        self._length = length

    def __getattr__(self, name: str) -> Any:
        if name == "_dataset":  # not set yet: being copied or unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __len__(self) -> int:
        return self._length


def build_dataloader(
    dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
) -> DataLoader:
    """Build a dataloader, or return the one given.

    Args:
        dataloader: a dataloader, or a dict with `dataset`, `sampler` or `batch_sampler`,
            optionally `collate_fn`, `worker_init_fn`, `num_batch_per_epoch`, and the arguments of
            torch's DataLoader.
        seed: seeds the sampler and the workers.
        diff_rank_seed: whether ranks have different seeds; samplers, which must agree, then get
            none and choose one together.
    """
    if isinstance(dataloader, DataLoader):
        return dataloader
    if isinstance(dataloader, Config):
        dataloader = dataloader._cfg_dict
    if not isinstance(dataloader, dict):
        raise TypeError(
            f"dataloader should be a Dataloader object or dict, but got {type(dataloader)}"
        )
    cfg = copy.copy(dict(dataloader))
    for key in ("dataset", "sampler"):
        if key not in cfg:
            raise KeyError(
                f"the dataloader's config needs the key {key!r}, got the keys {sorted(cfg)}"
            )
    dataset = _dataset(cfg)
    sampler_seed = None if diff_rank_seed else seed
    sampler = _sampler(cfg.pop("sampler"), {"dataset": dataset, "seed": sampler_seed})
    batch_sampler = cfg.pop("batch_sampler", None)
    if isinstance(batch_sampler, dict):
        batch_sampler = _sampler(
            batch_sampler, {"sampler": sampler, "batch_size": cfg.pop("batch_size", 1)}
        )
    init = _worker_init(cfg, seed)
    return DataLoader(
        dataset=dataset,
        sampler=sampler if batch_sampler is None else None,
        batch_sampler=batch_sampler,
        collate_fn=_collate_fn(cfg.pop("collate_fn", {"type": "pseudo_collate"})),
        worker_init_fn=init,
        **cfg,
    )


def _dataset(cfg: dict[str, Any]) -> Any:
    dataset = cfg.pop("dataset")
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dataset)
        if hasattr(dataset, "full_init"):
            dataset.full_init()
    num_batches = cfg.pop("num_batch_per_epoch", None)
    if num_batches is None:
        return dataset
    length = num_batches * _get_batch_size(cfg) * get_world_size()
    return _SlicedDataset(dataset, min(length, len(dataset)))


def _sampler(given: Any, default_args: dict[str, Any]) -> Any:
    return (
        DATA_SAMPLERS.build(given, default_args=default_args) if isinstance(given, dict) else given
    )


def _worker_init(cfg: dict[str, Any], seed: int | None) -> Callable[[int], None] | None:
    """The workers' start function; the default one also seeds each batch by its number."""
    given = cfg.pop("worker_init_fn", None)
    quiet = cfg.pop("disable_subprocess_warning", False)
    assert isinstance(quiet, bool), (
        f"disable_subprocess_warning should be a bool, but got {type(quiet)}"
    )
    if isinstance(given, dict):
        options = dict(given)
        return partial(_function(options.pop("type"), "worker_init_fn", AssertionError), **options)
    if given is not None:
        return given
    if seed is None:
        return None
    init = BatchSeededInit(
        default_worker_init_fn,
        num_workers=cfg.get("num_workers", 0),
        rank=get_rank(),
        seed=seed,
        disable_subprocess_warning=quiet,
    )
    init.rank = get_rank()
    return init


def _collate_fn(given: Any) -> Callable:
    if isinstance(given, dict):
        options = dict(given)
        return partial(_function(options.pop("type"), "collate_fn", TypeError), **options)
    if callable(given):
        return given
    raise TypeError(f"collate_fn should be a dict or callable object, but got {given}")


def _function(kind: str | Callable, name: str, missing: type[Exception]) -> Callable:
    """A function from its registered name; raises `missing` where there is none."""
    if callable(kind):
        return kind
    if not isinstance(kind, str):
        raise TypeError(f"type of {name} should be string or callable object, but got {type(kind)}")
    found = FUNCTIONS.get(kind)
    if found is None:
        raise missing(
            f"{name}: no function {kind!r} is registered; register it with "
            "FUNCTIONS.register_module()"
        )
    return found
