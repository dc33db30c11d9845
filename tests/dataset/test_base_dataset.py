"""Annotations, pipelines, subsets."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from fasttrain.dataset import BaseDataset, base_dataset, force_full_init


@pytest.fixture
def ann_file(tmp_path: Path) -> str:
    return written(
        tmp_path,
        {
            "metainfo": {"dataset_type": "test", "classes": ["x"]},
            "data_list": [{"img_path": f"{i}.jpg", "v": i} for i in range(5)],
        },
    )


def written(folder: Path, content: Any) -> str:
    path = folder / "annotations.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(base_dataset, "print_log", lambda msg, **kwargs: said.append(msg))
    return said


def seen(dataset: BaseDataset) -> list[int]:
    return [dataset[index]["v"] for index in range(len(dataset))]


@pytest.mark.parametrize("serialize", [True, False])
def test_items_are_fresh_copies_with_their_number(ann_file: str, serialize: bool) -> None:
    dataset = BaseDataset(ann_file, serialize_data=serialize)
    assert len(dataset) == 5
    first = dataset[0]
    assert first == {"img_path": "0.jpg", "v": 0, "sample_idx": 0}
    first["v"] = 99
    assert dataset[0]["v"] == 0
    assert dataset[-1]["sample_idx"] == 4
    assert dataset[-5]["v"] == 0
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} is out of bounds .* of size 5"):
            dataset[index]
    assert dataset.data_list == [] if serialize else len(dataset.data_list) == 5


def test_pickled_datasets_work(ann_file: str) -> None:
    assert seen(pickle.loads(pickle.dumps(BaseDataset(ann_file)))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("root", "prefix", "expected"),
    [
        ("", "", "0.jpg"),
        ("", "images", "images/0.jpg"),
        ("/root", "", "/root/0.jpg"),
        ("/root", "images", "/root/images/0.jpg"),
        ("/root", "/other", "/other/0.jpg"),
        ("/root", "s3://bucket/images", "s3://bucket/images/0.jpg"),
    ],
)
def test_paths_are_joined(ann_file: str, root: str, prefix: str, expected: str) -> None:
    prefixes = {"img_path": prefix}
    dataset = BaseDataset(ann_file, data_root=root, data_prefix=prefixes)
    assert dataset[0]["img_path"] == expected
    assert prefixes == {"img_path": prefix}


def test_the_annotation_file_stands_below_the_root(ann_file: str) -> None:
    folder, name = Path(ann_file).parent, Path(ann_file).name
    dataset = BaseDataset(name, data_root=str(folder), data_prefix={})
    assert dataset.ann_file == ann_file
    assert len(dataset) == 5


def test_metainfo_from_argument_over_class_over_file(
    ann_file: str, tmp_path: Path, warned: list[str]
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n", encoding="utf-8")

    class Own(BaseDataset):
        METAINFO = {"classes": ["own"], "palette": [1]}

    assert Own(ann_file).metainfo == {"classes": ["own"], "palette": [1], "dataset_type": "test"}
    given = {"classes": str(names), "task": "detection", "home": "nonesuch://x"}
    dataset = Own(ann_file, metainfo=given)
    assert dataset.metainfo == {
        "classes": ["cat", "dog"],
        "palette": [1],
        "task": "detection",
        "home": "nonesuch://x",
        "dataset_type": "test",
    }
    assert warned == [
        f"{text} is not a meta file, simply parsed as meta information"
        for text in ("detection", "nonesuch://x")
    ]
    dataset.metainfo["palette"].append(2)
    assert dataset.metainfo["palette"] == [1]
    assert Own.METAINFO == {"classes": ["own"], "palette": [1]}


def test_one_entry_may_give_several_annotations(ann_file: str) -> None:
    class Twice(BaseDataset):
        def parse_data_info(self, raw_data_info: dict) -> list[dict]:
            return [raw_data_info, {**raw_data_info, "v": -raw_data_info["v"]}]

    assert seen(Twice(ann_file)) == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]


def test_filtering(ann_file: str) -> None:
    class Filtered(BaseDataset):
        def filter_data(self) -> list[dict]:
            return [item for item in self.data_list if item["v"] >= self.filter_cfg["least"]]

    assert seen(Filtered(ann_file, filter_cfg={"least": 3})) == [3, 4]


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        ([1], TypeError, "should be a dict, but got <class 'list'>!"),
        ({"metainfo": {}}, ValueError, "Annotation must have data_list and metainfo keys"),
        ({"metainfo": {}, "data_list": [{}]}, AssertionError, "dose not contain prefix key"),
    ],
)
def test_wrong_annotations(tmp_path: Path, content: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        BaseDataset(written(tmp_path, content))


@pytest.mark.parametrize(
    ("parsed", "text"),
    [
        (3, "data_info should be a dict or list of dict, but got <class 'int'>"),
        ([3], "data_info must be list of dict, but got <class 'int'>"),
    ],
)
def test_wrongly_parsed_entries(ann_file: str, parsed: Any, text: str) -> None:
    class Wrong(BaseDataset):
        def parse_data_info(self, raw_data_info: dict) -> Any:
            return parsed

    with pytest.raises(TypeError, match=text):
        Wrong(ann_file)


def test_wrong_arguments(ann_file: str) -> None:
    with pytest.raises(TypeError, match="metainfo should be a Mapping or Config"):
        BaseDataset(ann_file, metainfo=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prefix should be a string, but got <class 'NoneType'>"):
        BaseDataset(ann_file, data_prefix={"img_path": None})
    with pytest.raises(TypeError, match="Unsupported format: ''"):
        BaseDataset()
    with pytest.raises(NotImplementedError, match="must implement `get_cat_ids` method"):
        BaseDataset(ann_file).get_cat_ids(0)


SUBSETS = [(2, [0, 1]), (-2, [3, 4]), (0, []), (5, [0, 1, 2, 3, 4]), ([3, 0, 3], [3, 0, 3])]


@pytest.mark.parametrize("serialize", [True, False])
@pytest.mark.parametrize(("indices", "expected"), SUBSETS)
def test_subsets(ann_file: str, serialize: bool, indices: Any, expected: list[int]) -> None:
    assert seen(BaseDataset(ann_file, serialize_data=serialize, indices=indices)) == expected
    whole = BaseDataset(ann_file, serialize_data=serialize)
    subset = whole.get_subset(indices)
    assert seen(subset) == expected
    assert subset.metainfo == whole.metainfo
    assert len(whole) == 5
    whole.get_subset_(indices)
    assert seen(whole) == expected


@pytest.mark.parametrize("indices", ["ab", 1.5, {1}])
def test_wrong_subsets(ann_file: str, indices: Any) -> None:
    with pytest.raises(TypeError, match="indices should be a int or sequence of int, but got"):
        BaseDataset(ann_file).get_subset(indices)


def test_subsets_beyond_the_end(ann_file: str) -> None:
    with pytest.raises(IndexError, match=r"indices \[9, -6\] are out of a dataset of 5 samples"):
        BaseDataset(ann_file).get_subset([9, 1, -6])
    for indices in (6, -6):
        with pytest.raises(AssertionError, match=rf"{indices} is out of dataset length\(5\)"):
            BaseDataset(ann_file).get_subset(indices)
        assert len(BaseDataset(ann_file, indices=indices)) == 5


def test_pickled_annotations_are_there_when_asked_for(ann_file: str) -> None:
    assert not hasattr(BaseDataset(ann_file, lazy_init=True), "data_bytes")
    assert not hasattr(BaseDataset(ann_file, serialize_data=False), "data_address")
    dataset = BaseDataset(ann_file)
    assert dataset.data_address[-1] == len(dataset.data_bytes)
    assert dataset.data_list == []


def test_an_empty_prefix_is_the_root(ann_file: str) -> None:
    dataset = BaseDataset(
        ann_file, data_root="root", data_prefix={"a": "", "b": "c"}, lazy_init=True
    )
    assert dataset.data_prefix == {"a": "root/", "b": "root/c"}


def test_lazy_datasets_are_loaded_when_needed(ann_file: str, warned: list[str]) -> None:
    lazy = BaseDataset(ann_file, lazy_init=True)
    assert not lazy._fully_initialized
    assert lazy.metainfo == {}
    assert warned == []
    assert len(lazy) == 5
    assert lazy._fully_initialized
    assert "`full_init` will be called" in warned[0]
    again = BaseDataset(ann_file, lazy_init=True)
    assert again[1]["v"] == 1
    assert warned[1] == "Please call `full_init()` method manually to accelerate the speed."


def test_force_full_init_needs_the_method() -> None:
    class Bare:
        @force_full_init
        def size(self) -> int:
            return 0

    with pytest.raises(AttributeError, match="does not have full_init method"):
        Bare().size()


class Refuse:
    """A transform that refuses odd samples."""

    def __call__(self, data: dict) -> dict | None:
        return None if data["v"] % 2 else data


def test_refused_samples_are_replaced_in_training_and_an_error_in_test(ann_file: str) -> None:
    training = BaseDataset(ann_file, pipeline=[Refuse()])
    assert all(training[1]["v"] % 2 == 0 for _ in range(5))
    with pytest.raises(Exception, match="Test time pipline should not get `None` data_sample"):
        BaseDataset(ann_file, pipeline=[Refuse()], test_mode=True)[1]
    with pytest.raises(Exception, match="Cannot find valid image after 3!"):
        BaseDataset(ann_file, indices=[1, 3], pipeline=[Refuse()], max_refetch=3)[0]
