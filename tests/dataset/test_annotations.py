"""Annotation files of every format."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import yaml

from fasttrain.core.checkpoint import UnsafeCheckpointError
from fasttrain.dataset.annotations import is_absolute, load_annotations, load_lines

CONTENT = {"metainfo": {"classes": ["a"]}, "data_list": [{"x": 1}]}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", json.dumps(CONTENT).encode()),
        ("a.yaml", yaml.safe_dump(CONTENT).encode()),
        ("a.YML", yaml.safe_dump(CONTENT).encode()),
        ("a.pkl", pickle.dumps(CONTENT)),
    ],
)
def test_formats(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert load_annotations(str(path)) == CONTENT


def test_pickled_arrays_are_data_and_functions_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"boxes": np.arange(4.0)}))
    assert load_annotations(str(path))["boxes"].tolist() == [0.0, 1.0, 2.0, 3.0]
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(UnsafeCheckpointError, match="print"):
        load_annotations(str(path))


def test_urls_are_read_through_fsspec() -> None:
    with fsspec.open("memory://annotations/a.json", "w") as file:
        json.dump(CONTENT, file)
    assert load_annotations("memory://annotations/a.json") == CONTENT


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("cat\nblack dog\n\nbird", encoding="utf-8")
    assert load_lines(str(path)) == ["cat", "black dog", "", "bird"]


@pytest.mark.parametrize(
    ("path", "absolute"),
    [("/a/b", True), ("a/b", False), ("s3://bucket/a", True), ("http://host/a", True), ("", False)],
)
def test_absolute_paths(path: str, absolute: bool) -> None:
    assert is_absolute(path) is absolute


def test_unknown_formats_and_missing_files() -> None:
    with pytest.raises(TypeError, match=r"Unsupported format: csv; an annotation file ends in"):
        load_annotations("a.csv")
    with pytest.raises(FileNotFoundError, match=r"nonesuch.json"):
        load_annotations("nonesuch.json")
