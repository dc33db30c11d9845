"""YAML and JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fasttrain.config import serialize

VALUES = {"a": [1, 2.5, None, True], "b": {"c": "x\ny", "d": {}}, "e": (1, (2,)), "é": "ü"}


def test_yaml_keeps_tuples():
    text = serialize.dump(VALUES, ".yaml")
    assert serialize.parse(text, ".yaml", "f") == VALUES
    assert "é: ü" in text


def test_json_makes_lists_of_tuples():
    assert serialize.parse(serialize.dump(VALUES, ".json"), ".json", "f") == {
        **VALUES, "e": [1, [2]],
    }  # fmt: skip


@pytest.mark.parametrize("extension", [".yaml", ".json"])
@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.array([1.5, 2.0]), [1.5, 2.0]),
        (np.float32(1.5), 1.5),
        (torch.tensor([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        ({5}, [5]),
        (Path("a/b"), "a/b"),
        (torch.float32, "torch.float32"),
        (json.JSONDecoder, "json.decoder.JSONDecoder"),
        (torch.Tensor, "torch.Tensor"),
    ],
)
def test_what_the_formats_do_not_know(extension, value, written):
    text = serialize.dump({"v": value}, extension)
    assert serialize.parse(text, extension, "f") == {"v": written}


def test_yaml_runs_no_code():
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        serialize.parse("a: !!python/object/apply:os.getcwd []", ".yaml", "f.yaml")


def test_broken_files_are_named():
    with pytest.raises(yaml.YAMLError, match=r'in "f\.yaml", line 2'):
        serialize.parse("b: 1\na: [1\n", ".yaml", "f.yaml")
    with pytest.raises(json.JSONDecodeError, match=r"f\.json: Expecting value: line 1 column 7"):
        serialize.parse('{"a": ', ".json", "f.json")
