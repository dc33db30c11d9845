"""Checks and conversions of types and containers."""

import collections

import pytest

from fasttrain import utils


def test_kinds_of_sequences():
    assert utils.is_str("a") and not utils.is_str(1)
    assert utils.is_seq_of(["a", "b"], str) and utils.is_seq_of(("a", 1), (str, int))
    assert utils.is_seq_of([], str)
    assert not utils.is_seq_of(["a"], str, seq_type=tuple) and not utils.is_seq_of(1, int)
    assert utils.is_list_of([1], int) and not utils.is_list_of((1,), int)
    assert utils.is_tuple_of((1,), int) and not utils.is_tuple_of([1], int)
    with pytest.raises(AssertionError, match="seq_type must be a class, got 'list'"):
        utils.is_seq_of([], int, seq_type="list")


def test_apply_to_keeps_the_classes_of_dicts():
    data = collections.OrderedDict(a=1, b=collections.defaultdict(list, c=2))
    applied = utils.apply_to(data, lambda item: isinstance(item, int), str)
    assert type(applied) is collections.OrderedDict and applied["b"]["x"] == []
    assert applied["a"] == "1" and applied["b"]["c"] == "2" and data["a"] == 1


def test_casts():
    assert utils.list_cast(["1", "2"], int) == [1, 2]
    assert utils.tuple_cast([1, 2], str) == ("1", "2")
    assert next(utils.iter_cast([1], float)) == 1.0
    with pytest.raises(TypeError, match="inputs must be an iterable object"):
        utils.iter_cast(1, str)
    with pytest.raises(TypeError, match='"dst_type" must be a valid type'):
        utils.iter_cast([1], "str")


def test_cutting_and_joining_lists():
    assert utils.slice_list([1, 2, 3, 4], 2) == [[1, 2], [3, 4]]
    assert utils.slice_list([1, 2, 3], [1, 0, 2]) == [[1], [], [2, 3]]
    assert utils.concat_list([[1, 2], [], [3]]) == [1, 2, 3]
    with pytest.raises(AssertionError, match="a list of 3 cannot be cut into parts of 2"):
        utils.slice_list([1, 2, 3], 2)
    with pytest.raises(ValueError, match="sum of lens and list length does not match: 2 != 3"):
        utils.slice_list([1, 2, 3], [1, 1])
    with pytest.raises(TypeError, match="must be an integer or a list of integers"):
        utils.slice_list([1], "1")


def test_ntuples():
    assert utils.to_1tuple(5) == (5,) and utils.to_4tuple(None) == (None,) * 4
    assert utils.to_2tuple((1, 2, 3)) == (1, 2, 3) and utils.to_2tuple("ab") == "ab"
    assert utils.to_3tuple(0) == utils.to_ntuple(3)(0) == (0, 0, 0)


def test_apply_to_keeps_containers():
    pair = collections.namedtuple("pair", "x y")
    data = {"a": [1, "s"], "b": (2, pair(3, "t"))}
    doubled = utils.apply_to(data, lambda x: isinstance(x, int), lambda x: x * 2)
    assert doubled == {"a": [2, "s"], "b": (4, pair(6, "t"))}
    assert type(doubled["b"][1]) is pair


def test_methods():
    class Base:
        attribute = 1

        def run(self):
            pass

    class Same(Base):
        pass

    class Other(Base):
        def run(self):
            pass

    assert utils.has_method(Base(), "run") and not utils.has_method(Base(), "attribute")
    assert utils.is_method_overridden("run", Base, Other)
    assert utils.is_method_overridden("run", Base, Other())
    assert not utils.is_method_overridden("run", Base, Same)
    with pytest.raises(AssertionError, match="base_class doesn't accept instance"):
        utils.is_method_overridden("run", Base(), Other)


def test_all_names_are_found_at_their_old_place():
    from fasttrain.utils import misc

    assert all(getattr(misc, name) is getattr(utils, name) for name in misc.__all__)
