"""States become plain trees; what has no plain form is named."""

import collections
import datetime
import enum
import pathlib

import numpy as np
import pytest
import torch

from fasttrain.core.checkpoint import plain_tree
from support import assert_same


class Level(enum.IntEnum):
    HIGH = 3


class Settings(dict):
    pass


class Part:
    def state_dict(self):
        return {"step": np.int64(4)}


class Pair(collections.namedtuple("Pair", "left right")):
    pass


def keep(tensor):
    return tensor


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(2.5), 2.5),
        (np.bool_(True), True),
        (Level.HIGH, 3),
        (Settings(a=Settings(b=1)), {"a": {"b": 1}}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (Pair(1, "x"), (1, "x")),
        (collections.deque([1, 2], 5), [1, 2]),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (datetime.date(2025, 1, 2), "2025-01-02"),
        (Part(), {"step": 4}),
        ({np.int64(3): 1, Level.HIGH: 2}, {3: 2}),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (range(3), [0, 1, 2]),
        (frozenset({1}), {1}),
        (bytearray(b"ab"), b"ab"),
    ],
)
def test_odd_values_become_plain(value, expected):
    plain = plain_tree({"entry": value}, keep)["entry"]
    assert plain == expected
    assert type(plain) is type(expected)


def test_numeric_arrays_become_tensors_of_their_own():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = plain_tree([array, np.array(3, dtype=">i4")], keep)
    array[:] = 0
    assert_same(plain[0], torch.arange(6.0).reshape(2, 3))
    assert_same(plain[1], torch.tensor(3, dtype=torch.int32))


def test_ordered_dicts_keep_their_metadata_and_counters_stay():
    weights = torch.nn.BatchNorm1d(2).state_dict()
    plain = plain_tree({"w": weights, "c": collections.Counter({2: 1})}, keep)
    assert type(plain["w"]) is collections.OrderedDict
    assert plain["w"]._metadata == weights._metadata
    assert type(plain["c"]) is collections.Counter


def test_the_tree_does_not_follow_its_source():
    inner = {"a": [1]}
    plain = plain_tree({"inner": inner}, keep)
    inner["a"].append(2)
    assert plain == {"inner": {"a": [1]}}


@pytest.mark.parametrize("value", [lambda: 0, object(), torch.nn.Linear, np])
def test_what_has_no_plain_form_is_named(value):
    with pytest.raises(TypeError, match=r"checkpoint\['meta'\]\['x'\]\[1\] holds .* cannot hold"):
        plain_tree({"meta": {"x": [0, value]}}, keep)


def test_a_container_that_contains_itself():
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested too deeply"):
        plain_tree(loop, keep)


def test_tensor_keys_are_refused():
    with pytest.raises(TypeError, match="the key of a dict"):
        plain_tree({torch.ones(1): 2}, keep)
