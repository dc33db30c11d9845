"""States become plain trees; what has no plain form is named."""

import collections
import datetime
import enum
import pathlib
import types

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
        (np.longdouble(0.5), 0.5),
        (np.clongdouble(1j), 1j),
        (np.timedelta64(3, "s"), "0:00:03"),
        (np.void(b"ab"), b"ab"),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
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


def test_arrays_of_more_precision_become_doubles():
    plain = plain_tree([np.array([0.5, 2], dtype=np.longdouble)], keep)
    assert_same(plain[0], torch.tensor([0.5, 2], dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_storages_become_tensors():
    tensor = torch.arange(3.0)
    plain = plain_tree([tensor.untyped_storage(), tensor.storage()], keep)
    assert_same(plain[0], tensor.view(torch.uint8))
    assert_same(plain[1], tensor)
    assert plain[1].data_ptr() == tensor.data_ptr()


class Color(enum.Enum):
    RED = 1


def test_keys_that_become_equal_are_refused():
    with pytest.raises(
        ValueError, match=r"checkpoint\['a'\] has keys that are equal in their plain"
    ):
        plain_tree({"a": {Color.RED: 1, 1: 2}}, keep)


def test_sets_of_sets_are_refused():
    with pytest.raises(TypeError, match=r"checkpoint\['a'\] holds .* only fits in frozen sets"):
        plain_tree({"a": {frozenset({1})}}, keep)


def test_an_object_with_a_broken_repr_is_named():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(TypeError, match=r"holds something whose repr raises RuntimeError, of type"):
        plain_tree({"a": Broken()}, keep)
