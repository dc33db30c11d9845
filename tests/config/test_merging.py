"""How values override each other."""

import copy

import pytest

from fasttrain.config import ConfigDict
from fasttrain.config.lazy import LazyObject
from fasttrain.config.merging import (
    join_bases,
    merge_a_into_b,
    nested_options,
    pop_deprecation,
    without_delete_keys,
)


@pytest.mark.parametrize(
    ("a", "b", "merged"),
    [
        ({"a": 1}, {"b": {"c": 1}}, {"b": {"c": 1}, "a": 1}),
        ({"b": {"d": 1}}, {"b": {"c": 1}}, {"b": {"c": 1, "d": 1}}),
        ({"b": [1]}, {"b": {"c": 1}}, {"b": [1]}),
        ({"b": None}, {"b": {"c": 1}}, {"b": None}),
        ({"b": {"_delete_": True, "q": {"z": 1}}}, {"b": {"c": 1}}, {"b": {"q": {"z": 1}}}),
        ({"b": {"_delete_": False, "q": 1}}, {"n": 1}, {"n": 1, "b": {"q": 1}}),
        ({"n": {"m": {"_delete_": True, "q": 1}}}, {}, {"n": {"m": {"q": 1}}}),
    ],
)
def test_merging_changes_neither(a, b, merged):
    before = copy.deepcopy((a, b))
    for kind in (dict, ConfigDict):
        result = merge_a_into_b(kind(a), kind(b))
        assert result == merged and type(result) is kind
    assert (a, b) == before


def test_a_dict_cannot_override_something_else():
    with pytest.raises(TypeError) as caught:
        merge_a_into_b({"b": {"d": 1}}, {"b": 3})
    assert str(caught.value) == (
        "b={'d': 1} in child config cannot inherit from base because b is a dict in the child "
        "config but is of type <class 'int'> in base config. You may set `_delete_=True` to "
        "ignore the base config."
    )
    with pytest.raises(TypeError, match="of type <class 'list'> in base config"):
        merge_a_into_b({"b": {"0": 1}}, {"b": [3]})


def test_list_keys():
    b = {"b": [{"x": 1}, 2]}
    merged = merge_a_into_b({"b": {"0": {"y": 1}, "1": 3}}, b, allow_list_keys=True)
    assert merged == {"b": [{"x": 1, "y": 1}, 3]} and b == {"b": [{"x": 1}, 2]}
    with pytest.raises(KeyError, match="Index 2 exceeds the length of list"):
        merge_a_into_b({"b": {"2": 1}}, b, allow_list_keys=True)
    with pytest.raises(TypeError, match="list indices must be integers, but got the key 'x'"):
        merge_a_into_b({"b": {"x": 1}}, b, allow_list_keys=True)


def test_nothing_is_imported_on_the_way():
    lazy = LazyObject("not_a_module")
    merged = merge_a_into_b(ConfigDict(a={"x": lazy}), ConfigDict(a={"y": lazy}, z=lazy))
    assert merged._to_lazy_dict() == {"a": {"y": lazy, "x": lazy}, "z": lazy}


def test_without_delete_keys():
    value = {"_delete_": True, "a": {"_delete_": False, "b": 1}}
    assert without_delete_keys(value) == {"a": {"b": 1}} and "_delete_" in value
    assert without_delete_keys([1]) == [1]


def test_nested_options():
    assert nested_options({"a.b.c": 1, "a.d": 2, "e": {"f": 3}, "e.g": 4, "h.0": 5}) == {
        "a": {"b": {"c": 1}, "d": 2},
        "e": {"f": 3, "g": 4},
        "h": {"0": 5},
    }


def test_nested_options_leave_the_given_dicts_alone():
    options = {"e": {"f": {"h": 3}}, "e.g": 4, "e.f.i": 5}
    nested_options(options)
    assert options == {"e": {"f": {"h": 3}}, "e.g": 4, "e.f.i": 5}


def test_nested_options_that_contradict():
    with pytest.raises(TypeError, match=r"option 'a\.b' needs a dict at 'a', which another"):
        nested_options({"a": 1, "a.b": 2})


def test_join_bases():
    assert join_bases([("1.py", {"a": 1}), ("2.py", {"b": 2})]) == {"a": 1, "b": 2}
    with pytest.raises(KeyError) as caught:
        join_bases([("1.py", {"a": 1}), ("2.py", {"b": 2}), ("3.py", {"b": 2})])
    assert caught.value.args[0] == (
        "Duplicate key is not allowed among bases. Duplicate keys: {'b'} in 3.py and in 2.py"
    )


def test_deprecation():
    cfg = {"_deprecation_": {"expected": "new.py", "reference": "the wiki"}, "a": 1}
    with pytest.warns(DeprecationWarning) as caught:
        pop_deprecation(cfg, "old.py")
    assert str(caught[0].message) == (
        "The config file old.py will be deprecated in the future. Please use new.py instead. More "
        "information can be found at the wiki"
    )
    pop_deprecation(cfg, "old.py")
    assert cfg == {"a": 1} and len(caught) == 1
