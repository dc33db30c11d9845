"""BaseDataset: a list of annotations and a pipeline that turns one of them into a sample."""

from __future__ import annotations

import copy
import functools
import logging
import os.path
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from fasttrain.dataset.annotations import is_absolute, load_annotations, load_lines
from fasttrain.dataset.compose import Compose
from fasttrain.logging import print_log

__all__ = ["BaseDataset", "Compose", "force_full_init"]

ANNOTATION_ATTRIBUTES = ("data_list", "data_bytes", "data_address")


def force_full_init(old_func: Callable) -> Any:
    """Decorate a method to call `full_init()` first when that has not happened."""

    @functools.wraps(old_func)
    def wrapper(obj: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(obj, "full_init"):
            raise AttributeError(f"{type(obj)} does not have full_init method.")
        if not getattr(obj, "_fully_initialized", False):
            print_log(
                f"Attribute `_fully_initialized` is not defined in {type(obj)} or "
                f"`type(obj)._fully_initialized is False, `full_init` will be called and "
                f"{type(obj)}._fully_initialized will be set to True",
                logger="current",
                level=logging.WARNING,
            )
            obj.full_init()
            obj._fully_initialized = True
        return old_func(obj, *args, **kwargs)

    return wrapper


class BaseDataset(Dataset):
    """Base of datasets with an annotation file.

    The file holds `{"metainfo": {...}, "data_list": [...]}`; override `load_data_list` for others.

    Args:
        ann_file: path of the annotations.
        metainfo: overrides the class's `METAINFO`, and the file's.
        data_root: what relative paths of `ann_file` and `data_prefix` stand below.
        data_prefix: field of an annotation -> folder that its paths stand below.
        filter_cfg: for `filter_data`.
        indices: use the first (or, negative, the last) so many, or those listed.
        serialize_data: keep annotations pickled in one array, which worker processes share.
        pipeline: transforms, or configs of them.
        test_mode: a sample that the pipeline refuses is an error, not replaced by another.
        lazy_init: leave loading to `full_init()`.
        max_refetch: how many other samples are tried when the pipeline refuses.
    """

    METAINFO: dict = {}
    _fully_initialized: bool = False
    # The annotations, pickled one after the other, and where each one ends; with `serialize_data`
    # they take the place of `data_list`.
    data_bytes: np.ndarray
    data_address: np.ndarray

    def __init__(
        self,
        ann_file: str | None = "",
        metainfo: Mapping | None = None,
        data_root: str | None = "",
        data_prefix: dict = {"img_path": ""},  # noqa: B006  copied below
        filter_cfg: dict | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: list[dict | Callable] = [],  # noqa: B006  read only
        test_mode: bool = False,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        self.ann_file = ann_file
        self._metainfo = self._load_metainfo(copy.deepcopy(metainfo))
        self.data_root = data_root
        self.data_prefix = copy.copy(data_prefix)
        self.filter_cfg = copy.deepcopy(filter_cfg)
        self._indices = indices
        self.serialize_data = serialize_data
        self.test_mode = test_mode
        self.max_refetch = max_refetch
        self.data_list: list[dict] = []
        self._join_prefix()
        self.pipeline = Compose(pipeline)
        if not lazy_init:
            self.full_init()

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """A copy of annotation `idx`, its number under `sample_idx`."""
        size = len(self)
        if not -size <= idx < size:
            raise IndexError(f"index {idx} is out of bounds for a dataset of size {size}")
        number = idx + size if idx < 0 else idx
        if self.serialize_data:
            start = 0 if number == 0 else int(self.data_address[number - 1])
            end = int(self.data_address[number])
            data_info = pickle.loads(self.data_bytes[start:end].data)  # our own bytes
        else:
            data_info = copy.deepcopy(self.data_list[number])
        data_info["sample_idx"] = number
        return data_info

    def full_init(self) -> None:
        """Load, filter, cut to `indices` and serialize the annotations, once."""
        if self._fully_initialized:
            return
        self.data_list = self.load_data_list()
        self.data_list = self.filter_data()
        if self._indices is not None:
            self.data_list = self._get_unserialized_subset(self._indices)
        if self.serialize_data:
            self.data_bytes, self.data_address = self._serialize_data()
        self._fully_initialized = True

    @property
    def metainfo(self) -> dict:
        """A copy of the information about the whole dataset, such as the names of classes."""
        return copy.deepcopy(self._metainfo)

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        """Turn one entry of the file into one annotation, or several; here: join its paths."""
        for key, prefix in self.data_prefix.items():
            assert key in raw_data_info, (
                f"raw_data_info: {raw_data_info} dose not contain prefix key{key}, please check "
                "your data_prefix."
            )
            raw_data_info[key] = os.path.join(prefix, raw_data_info[key])
        return raw_data_info

    def filter_data(self) -> list[dict]:
        """The annotations to keep; for subclasses, with `filter_cfg`."""
        return self.data_list

    def get_cat_ids(self, idx: int) -> list[int]:
        """The categories in sample `idx`; for subclasses."""
        raise NotImplementedError(f"{type(self)} must implement `get_cat_ids` method")

    def __getitem__(self, idx: int) -> dict:
        """Sample `idx` from the pipeline, or another one where that gives None."""
        if not self._fully_initialized:
            print_log(
                "Please call `full_init()` method manually to accelerate the speed.",
                logger="current",
                level=logging.WARNING,
            )
            self.full_init()
        if self.test_mode:
            data = self.prepare_data(idx)
            if data is None:
                raise Exception("Test time pipline should not get `None` data_sample")
            return data
        for _ in range(self.max_refetch + 1):
            data = self.prepare_data(idx)
            if data is not None:
                return data
            idx = self._rand_another()
        raise Exception(
            f"Cannot find valid image after {self.max_refetch}! Please check your image path and "
            "pipeline"
        )

    def load_data_list(self) -> list[dict]:
        """Read `ann_file`; its metainfo fills what `metainfo` left open."""
        annotations = load_annotations(os.fspath(self.ann_file or ""))
        if not isinstance(annotations, dict):
            raise TypeError(
                "The annotations loaded from annotation file should be a dict, but got "
                f"{type(annotations)}!"
            )
        if "data_list" not in annotations or "metainfo" not in annotations:
            raise ValueError("Annotation must have data_list and metainfo keys")
        for key, value in annotations["metainfo"].items():
            self._metainfo.setdefault(key, value)
        return [
            data_info
            for raw_data_info in annotations["data_list"]
            for data_info in self._parse(raw_data_info)
        ]

    def _parse(self, raw_data_info: dict) -> list[dict]:
        parsed = self.parse_data_info(raw_data_info)
        if isinstance(parsed, dict):
            return [parsed]
        if not isinstance(parsed, list):
            raise TypeError(f"data_info should be a dict or list of dict, but got {type(parsed)}")
        for data_info in parsed:
            if not isinstance(data_info, dict):
                raise TypeError(f"data_info must be list of dict, but got {type(data_info)}")
        return parsed

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping | None = None) -> dict:
        """The class's metainfo with `metainfo` over it; a value may be a file of lines."""
        loaded = copy.deepcopy(cls.METAINFO)
        if metainfo is None:
            return loaded
        if not isinstance(metainfo, Mapping) and not hasattr(metainfo, "items"):
            raise TypeError(f"metainfo should be a Mapping or Config, but got {type(metainfo)}")
        for key, value in metainfo.items():
            if isinstance(value, str):
                try:
                    value = load_lines(value)
                except (TypeError, ValueError, OSError, ImportError):  # no file, or no URL
                    print_log(
                        f"{value} is not a meta file, simply parsed as meta information",
                        logger="current",
                        level=logging.WARNING,
                    )
            loaded[key] = value
        return loaded

    def _join_prefix(self) -> None:
        """Put `data_root` before the relative paths among `ann_file` and `data_prefix`."""
        if self.ann_file and not is_absolute(self.ann_file) and self.data_root:
            self.ann_file = os.path.join(self.data_root, self.ann_file)
        for key, prefix in self.data_prefix.items():
            if not isinstance(prefix, str):
                raise TypeError(f"prefix should be a string, but got {type(prefix)}")
            if self.data_root and not is_absolute(prefix):
                self.data_prefix[key] = os.path.join(self.data_root, prefix)

    @force_full_init
    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep the first (or, negative, the last) so many samples, or those listed."""
        if self.serialize_data:
            self.data_bytes, self.data_address = self._get_serialized_subset(indices)
        else:
            self.data_list = self._get_unserialized_subset(indices)

    @force_full_init
    def get_subset(self, indices: Sequence[int] | int) -> BaseDataset:
        """A new dataset of the first (or, negative, the last) so many samples, or those listed."""
        subset = self._copy_without_annotation()
        if self.serialize_data:
            subset.data_list = []
            subset.data_bytes, subset.data_address = self._get_serialized_subset(indices)
        else:
            subset.data_list = self._get_unserialized_subset(indices)
        return subset

    def _get_serialized_subset(self, indices: Sequence[int] | int) -> tuple[np.ndarray, np.ndarray]:
        size = len(self.data_address)
        if isinstance(indices, int):
            assert abs(indices) <= size, f"{indices} is out of dataset length({size})"
        chosen = _chosen(indices, size)
        ends = self.data_address[chosen]
        starts = np.concatenate(([0], self.data_address[:-1]))[chosen]
        parts = [self.data_bytes[start:end] for start, end in zip(starts, ends, strict=True)]
        return _joined(parts), np.cumsum(ends - starts)

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> list:
        return [self.data_list[index] for index in _chosen(indices, len(self.data_list))]

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """Pickle every annotation into one array of bytes; returns it and where each one ends."""
        pickled = [pickle.dumps(item, protocol=4) for item in self.data_list]
        self.data_list.clear()
        parts = [np.frombuffer(item, dtype=np.uint8) for item in pickled]
        return _joined(parts), np.cumsum([len(item) for item in pickled], dtype=np.int64)

    def _rand_another(self) -> int:
        return int(np.random.randint(0, len(self)))

    def prepare_data(self, idx: int) -> Any:
        """Annotation `idx` through the pipeline."""
        return self.pipeline(self.get_data_info(idx))

    @force_full_init
    def __len__(self) -> int:
        return len(self.data_address) if self.serialize_data else len(self.data_list)

    def _copy_without_annotation(self, memo: dict | None = None) -> BaseDataset:
        """A deep copy of everything but the annotations."""
        memo = {} if memo is None else memo
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        for key, value in vars(self).items():
            if key not in ANNOTATION_ATTRIBUTES:
                setattr(other, key, copy.deepcopy(value, memo))
        return other


def _chosen(indices: Sequence[int] | int, size: int) -> list[int]:
    """Indices as a list of numbers: the first n for n >= 0, the last -n otherwise."""
    if isinstance(indices, int):
        return list(range(size)[:indices] if indices >= 0 else range(size)[indices:])
    if not isinstance(indices, Sequence) or isinstance(indices, str):
        raise TypeError(f"indices should be a int or sequence of int, but got {type(indices)}")
    numbers = range(size)
    try:
        return [numbers[index] for index in indices]
    except IndexError as e:
        wrong = [index for index in indices if not -size <= index < size]
        raise IndexError(f"indices {wrong} are out of a dataset of {size} samples") from e


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)
