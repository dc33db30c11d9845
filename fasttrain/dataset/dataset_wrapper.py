"""Datasets made of others: joined, repeated, or with rare classes repeated."""

from __future__ import annotations

import copy
import logging
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from torch.utils.data import ConcatDataset as TorchConcatDataset

from fasttrain.dataset.base_dataset import BaseDataset, force_full_init
from fasttrain.logging import print_log
from fasttrain.registry import DATASETS


def _built(dataset: BaseDataset | dict) -> BaseDataset:
    if isinstance(dataset, dict):
        return DATASETS.build(dataset)
    if isinstance(dataset, BaseDataset | _Wrapper):
        return dataset  # type: ignore[return-value]
    raise TypeError(
        "elements in datasets sequence should be config or `BaseDataset` instance, but got "
        f"{type(dataset)}"
    )


class _Wrapper:
    """What the wrappers share: information about the whole, and lazy initialization."""

    _metainfo: dict
    _fully_initialized: bool = False

    @property
    def metainfo(self) -> dict:
        """A copy of the first dataset's information."""
        return copy.deepcopy(self._metainfo)

    def full_init(self) -> None:
        """Initialize the wrapped datasets."""
        raise NotImplementedError

    def _init_late(self) -> None:
        if not self._fully_initialized:
            print_log(
                "Please call `full_init` method manually to accelerate the speed.",
                logger="current",
                level=logging.WARNING,
            )
            self.full_init()

    def get_subset_(self, indices: list[int] | int) -> None:
        """Not supported: which samples of which dataset would be ambiguous."""
        raise self._no_subset()

    def get_subset(self, indices: list[int] | int) -> BaseDataset:
        """Not supported: which samples of which dataset would be ambiguous."""
        raise self._no_subset()

    def _no_subset(self) -> NotImplementedError:
        name = type(self).__name__
        return NotImplementedError(
            f"`{name}` dose not support `get_subset` and `get_subset_` interfaces because this "
            "will lead to ambiguous implementation of some methods. If you want to use "
            "`get_subset` or `get_subset_` interfaces, please use them in the wrapped dataset "
            f"first and then use `{name}`."
        )


@DATASETS.register_module()
class ConcatDataset(_Wrapper, TorchConcatDataset):
    """Several datasets one after the other.

    Args:
        datasets: datasets, or configs of them.
        lazy_init: leave initialization to `full_init()`.
        ignore_keys: entries of metainfo that may differ between the datasets.
    """

    def __init__(
        self,
        datasets: Sequence[BaseDataset | dict],
        lazy_init: bool = False,
        ignore_keys: str | list[str] | None = None,
    ) -> None:
        self.datasets: list[BaseDataset] = [_built(dataset) for dataset in datasets]  # type: ignore
        if isinstance(ignore_keys, str):
            ignore_keys = [ignore_keys]
        elif not isinstance(ignore_keys, list | None):
            raise TypeError(f"ignore_keys should be a list or str, but got {type(ignore_keys)}")
        self.ignore_keys: list[str] = ignore_keys or []
        self._check_metainfo()
        self._metainfo = self.datasets[0].metainfo
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def _check_metainfo(self) -> None:
        keys = {key for dataset in self.datasets for key in dataset.metainfo} - {*self.ignore_keys}
        first = self.datasets[0].metainfo
        for number, dataset in enumerate(self.datasets, start=1):
            for key in sorted(keys):
                if key not in dataset.metainfo:
                    raise ValueError(
                        f"{key} does not in the meta information of the {number}-th dataset"
                    )
                kinds = type(dataset.metainfo[key]), type(first[key])
                if kinds[0] is not kinds[1]:
                    raise TypeError(
                        f"The type {kinds[0]} of {key} in the {number}-th dataset should be the "
                        f"same with the first dataset {kinds[1]}"
                    )
                if not _equal(dataset.metainfo[key], first[key]):
                    raise ValueError(
                        f"The meta information of the {number}-th dataset does not match meta "
                        "information of the first dataset"
                    )

    def full_init(self) -> None:
        """Initialize every dataset and add up their sizes."""
        if self._fully_initialized:
            return
        for dataset in self.datasets:
            dataset.full_init()
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))
        self._fully_initialized = True

    @force_full_init
    def _get_ori_dataset_idx(self, idx: int) -> tuple[int, int]:
        """Which dataset sample `idx` is from, and its number there."""
        size = len(self)
        if idx < -size:
            raise ValueError(
                f"absolute value of index({idx}) should not exceed datasetlength({size})."
            )
        if idx >= size:
            raise IndexError(f"index {idx} is out of bounds for a dataset of size {size}")
        idx = idx + size if idx < 0 else idx
        number = bisect_right(self.cumulative_sizes, idx)
        return number, idx - (self.cumulative_sizes[number - 1] if number else 0)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Annotation `idx`."""
        number, sample_idx = self._get_ori_dataset_idx(idx)
        return self.datasets[number].get_data_info(sample_idx)

    @force_full_init
    def __len__(self) -> int:
        return self.cumulative_sizes[-1] if self.cumulative_sizes else 0

    def __getitem__(self, idx: int) -> Any:
        self._init_late()
        number, sample_idx = self._get_ori_dataset_idx(idx)
        return self.datasets[number][sample_idx]


class _SingleWrapper(_Wrapper):
    """A wrapper of one dataset; subclasses map their indices to its."""

    dataset: BaseDataset

    def _wrap(self, dataset: BaseDataset | dict, lazy_init: bool) -> None:
        self.dataset = _built(dataset)
        self._metainfo = self.dataset.metainfo
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def _get_ori_dataset_idx(self, idx: int) -> int:
        raise NotImplementedError

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Annotation `idx`."""
        return self.dataset.get_data_info(self._get_ori_dataset_idx(idx))

    def __getitem__(self, idx: int) -> Any:
        self._init_late()
        return self.dataset[self._get_ori_dataset_idx(idx)]


@DATASETS.register_module()
class RepeatDataset(_SingleWrapper):
    """A dataset several times over: longer epochs without restarting the workers.

    Args:
        dataset: the dataset, or the config of it.
        times: how many times.
        lazy_init: leave initialization to `full_init()`.
    """

    def __init__(self, dataset: BaseDataset | dict, times: int, lazy_init: bool = False) -> None:
        self.times = times
        self._wrap(dataset, lazy_init)

    def full_init(self) -> None:
        """Initialize the dataset."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        self._ori_len = len(self.dataset)
        self._fully_initialized = True

    @force_full_init
    def _get_ori_dataset_idx(self, idx: int) -> int:
        return idx % self._ori_len

    @force_full_init
    def __len__(self) -> int:
        return self.times * self._ori_len


@DATASETS.register_module()
class ClassBalancedDataset(_SingleWrapper):
    """A dataset in which samples of rare classes are repeated (LVIS, https://arxiv.org/abs/1908.03195).

    With f(c) the share of samples that hold class c, a sample is repeated
    ceil(max over its c of max(1, sqrt(oversample_thr / f(c)))) times.

    Args:
        dataset: the dataset, or the config of it; it implements `get_cat_ids`.
        oversample_thr: classes in a smaller share of samples are repeated.
        lazy_init: leave initialization to `full_init()`.
    """

    def __init__(
        self, dataset: BaseDataset | dict, oversample_thr: float, lazy_init: bool = False
    ) -> None:
        self.oversample_thr = oversample_thr
        self._wrap(dataset, lazy_init)

    def full_init(self) -> None:
        """Initialize the dataset and count its classes."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        factors = self._get_repeat_factors(self.dataset, self.oversample_thr)
        self.repeat_indices: list[int] = [
            index for index, factor in enumerate(factors) for _ in range(math.ceil(factor))
        ]
        self._fully_initialized = True

    def _get_repeat_factors(self, dataset: BaseDataset, repeat_thr: float) -> list[float]:
        size = len(dataset)
        categories = [set(dataset.get_cat_ids(index)) for index in range(size)]
        counts = Counter(category for ids in categories for category in ids)
        factors = {
            category: max(1.0, math.sqrt(repeat_thr / (count / size)))
            for category, count in counts.items()
        }
        return [max((factors[category] for category in ids), default=1.0) for ids in categories]

    @force_full_init
    def _get_ori_dataset_idx(self, idx: int) -> int:
        return self.repeat_indices[idx]

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """The categories in sample `idx`."""
        return self.dataset.get_cat_ids(self._get_ori_dataset_idx(idx))

    @force_full_init
    def __len__(self) -> int:
        return len(self.repeat_indices)


def _equal(left: Any, right: Any) -> bool:
    """Equality that also serves arrays."""
    same = left == right
    return bool(same.all()) if hasattr(same, "all") else bool(same)
