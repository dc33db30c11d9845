"""Datasets joined, repeated and balanced."""

from __future__ import annotations

from typing import Any

import pytest

from fasttrain.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
    dataset_wrapper,
)
from fasttrain.registry import DATASETS


class Numbers(BaseDataset):
    """Numbers from 0; those from 4 on also hold category 1."""

    def __init__(self, size: int = 5, **kwargs: Any) -> None:
        self.size = size
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        return [{"v": value} for value in range(self.size)]

    def get_cat_ids(self, idx: int) -> list[int]:
        value = self.get_data_info(idx)["v"]
        return [] if value == 0 else [0] if value < 4 else [0, 1]


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(dataset_wrapper, "print_log", lambda msg, **kwargs: said.append(msg))
    monkeypatch.setattr(
        "fasttrain.dataset.base_dataset.print_log", lambda msg, **kwargs: said.append(msg)
    )
    return said


def seen(dataset: Any) -> list[int]:
    return [dataset[index]["v"] for index in range(len(dataset))]


def test_concatenation() -> None:
    joined = ConcatDataset([Numbers(2), Numbers(0), Numbers(3)])
    assert seen(joined) == [0, 1, 0, 1, 2]
    assert joined.cumulative_sizes == [2, 2, 5]
    assert joined._get_ori_dataset_idx(3) == (2, 1)
    assert joined.get_data_info(-1)["v"] == 2
    assert joined[-5]["v"] == 0
    with pytest.raises(IndexError, match="index 5 is out of bounds"):
        joined[5]
    with pytest.raises(ValueError, match=r"index\(-6\) should not exceed datasetlength\(5\)"):
        joined[-6]


def test_concatenated_datasets_tell_the_same_story() -> None:
    plain, other = Numbers(metainfo={"a": 1}), Numbers(metainfo={"a": 2})
    richer = Numbers(metainfo={"a": 1, "b": [1]})
    with pytest.raises(ValueError, match="b does not in the meta information of the 1-th dataset"):
        ConcatDataset([plain, richer])
    with pytest.raises(ValueError, match="information of the 2-th dataset does not match"):
        ConcatDataset([plain, other])
    assert ConcatDataset([plain, other], ignore_keys="a").metainfo == {"a": 1}
    with pytest.raises(
        TypeError, match="<class 'str'> of a in the 2-th dataset should be the same"
    ):
        ConcatDataset([plain, Numbers(metainfo={"a": ""})])
    assert len(ConcatDataset([richer, other], ignore_keys=["a", "b"])) == 10
    with pytest.raises(
        TypeError, match="ignore_keys should be a list or str, but got <class 'int'>"
    ):
        ConcatDataset([plain], ignore_keys=3)  # type: ignore[arg-type]


def test_repetition() -> None:
    repeated = RepeatDataset(Numbers(3), times=2)
    assert seen(repeated) == [0, 1, 2, 0, 1, 2]
    assert repeated.get_data_info(4)["v"] == 1
    assert repeated[-1]["v"] == 2


def test_rare_classes_are_repeated() -> None:
    balanced = ClassBalancedDataset(Numbers(), oversample_thr=0.9)
    # f(1) = 1/5: sqrt(0.9 / 0.2) = 2.12, rounded up; f(0) = 4/5: sqrt(0.9 / 0.8) = 1.06
    assert balanced._get_repeat_factors(balanced.dataset, 0.9) == pytest.approx(
        [1, 1.0606602, 1.0606602, 1.0606602, 2.1213203]
    )
    assert seen(balanced) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert balanced.get_cat_ids(9) == [0, 1]
    with pytest.raises(IndexError):
        balanced[10]


WRAPPERS = [
    (lambda dataset, **kwargs: ConcatDataset([dataset], **kwargs), "ConcatDataset"),
    (lambda dataset, **kwargs: RepeatDataset(dataset, 2, **kwargs), "RepeatDataset"),
    (
        lambda dataset, **kwargs: ClassBalancedDataset(dataset, 0.1, **kwargs),
        "ClassBalancedDataset",
    ),
]


@pytest.mark.parametrize(("wrap", "name"), WRAPPERS, ids=[name for _, name in WRAPPERS])
def test_what_all_wrappers_share(wrap: Any, name: str, warned: list[str]) -> None:
    DATASETS.register_module(name="NumbersTest", module=Numbers)
    try:
        built = wrap(dict(type="NumbersTest", size=4, metainfo={"a": [1]}))
    finally:
        DATASETS.module_dict.pop("NumbersTest")
    assert seen(built)[:4] == [0, 1, 2, 3]
    built.metainfo["a"].append(2)
    assert built.metainfo == {"a": [1]}

    lazy = wrap(Numbers(lazy_init=True), lazy_init=True)
    assert not lazy._fully_initialized
    assert lazy[1]["v"] == 1
    assert warned == ["Please call `full_init` method manually to accelerate the speed."]
    assert lazy.dataset._fully_initialized if name != "ConcatDataset" else True

    with pytest.raises(TypeError, match="should be config or `BaseDataset` instance, but got"):
        wrap(3)
    for method in (built.get_subset, built.get_subset_):
        with pytest.raises(NotImplementedError, match=f"`{name}` dose not support `get_subset`"):
            method(1)
    assert len(wrap(built)) >= len(built)
