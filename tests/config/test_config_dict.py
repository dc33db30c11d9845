"""A dict with attribute access."""

import collections
import copy
import json
import math
import pickle

import pytest

from fasttrain.config import ConfigDict
from fasttrain.config.config_dict import UnreadConfigDict, to_config_dict
from fasttrain.config.lazy import LazyAttr, LazyObject

Pair = collections.namedtuple("Pair", "x y")


class OwnDict(dict):
    pass


class OwnList(list):
    pass


def lazy_pi():
    return LazyObject("math", "pi")


def test_nested_dicts_get_attributes():
    cfg = ConfigDict(a=1, b={"c": 2, "l": [{"x": 1}, [{"y": 2}], ({"z": 3},)]})
    assert cfg.b.c == 2 and cfg.b.l[0].x == 1 and cfg.b.l[1][0].y == 2 and cfg.b.l[2][0].z == 3
    assert cfg == {"a": 1, "b": {"c": 2, "l": [{"x": 1}, [{"y": 2}], ({"z": 3},)]}}
    assert repr(cfg) == repr(dict(cfg)) == str(cfg)


def test_every_way_of_writing_converts():
    cfg = ConfigDict()
    cfg.a = {"x": 1}
    cfg["b"] = [{"x": 2}]
    cfg.update(c={"x": 3})
    cfg.update([("d", {"x": 4})])
    assert cfg.setdefault("e", {"x": 5}).x == 5
    assert cfg.setdefault("a", 3) == {"x": 1}
    cfg |= {"f": {"x": 6}}
    assert [cfg.a.x, cfg.b[0].x, cfg.c.x, cfg.d.x, cfg.e.x, cfg.f.x] == [1, 2, 3, 4, 5, 6]
    del cfg.a, cfg["b"]
    assert list(cfg) == ["c", "d", "e", "f"]


def test_what_is_missing():
    cfg = ConfigDict(a={})
    with pytest.raises(AttributeError, match="'ConfigDict' object has no attribute 'nope'"):
        _ = cfg.a.nope
    with pytest.raises(KeyError, match="'nope'"):
        _ = cfg["nope"]
    with pytest.raises(KeyError, match="'nope'"):
        del cfg.nope
    assert not hasattr(cfg, "nope") and getattr(cfg, "nope", 3) == 3
    assert cfg.get("nope") is None and cfg.get("nope", 3) == 3
    assert cfg.pop("nope") is None and cfg.pop("nope", 3) == 3 and cfg.pop("a") == {}


def test_methods_cannot_be_overwritten_but_their_names_may_be_keys():
    cfg = ConfigDict()
    with pytest.raises(AttributeError, match="'ConfigDict' object attribute 'items' is read-only"):
        cfg.items = 3
    cfg["items"] = 3
    assert cfg["items"] == 3 and cfg.items() == [("items", 3)]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (({"a": 1}, {"b": {"c": 2}}), {"a": 1, "b": {"c": 2}}),
        (([("a", 1)],), {"a": 1}),
        ((("a", 1),), {"a": 1}),
        (((k, k) for k in "ab"), {"a": "a", "b": "b"}),
        ((None,), {}),
        ((), {}),
    ],
)
def test_constructor(args, expected):
    if not isinstance(args, tuple):
        args = (args,)
    assert ConfigDict(*args) == expected


def test_constructor_accepts_any_keyword_and_refuses_numbers():
    assert ConfigDict(self=1, args=2) == {"self": 1, "args": 2}
    with pytest.raises(TypeError):
        ConfigDict(3)


def test_other_containers_keep_their_class():
    cfg = ConfigDict(
        own=OwnDict(a=1), list=OwnList([{"b": 1}]), pair=Pair(1, {"c": 1}),
        ordered=collections.OrderedDict(d=1), set={1},
    )  # fmt: skip
    assert type(cfg.own) is OwnDict and type(cfg.list) is OwnList and cfg.list[0].b == 1
    assert type(cfg.pair) is Pair and cfg.pair.y.c == 1
    assert type(cfg.ordered) is ConfigDict and cfg.set == {1}
    inner = ConfigDict(x=1)
    assert ConfigDict(a=inner).a is inner


def test_update_merges_dicts_and_replaces_the_rest():
    cfg = ConfigDict(a=1, b={"c": 1, "l": [1, 2]})
    cfg.update({"b": {"d": 2, "l": [3]}}, a={"e": 1})
    assert cfg == {"a": {"e": 1}, "b": {"c": 1, "d": 2, "l": [3]}}
    with pytest.raises(TypeError, match="update only accept one positional argument, but got 2"):
        cfg.update({}, {})


def test_merge_obeys_delete():
    cfg = ConfigDict(b={"c": 1}, k=1)
    cfg.merge({"b": {"_delete_": True, "d": {"e": 2}}})
    assert cfg == {"b": {"d": {"e": 2}}, "k": 1} and cfg.b.d.e == 2
    cfg.merge({"b": {"_delete_": False, "f": 1}})
    assert cfg == {"b": {"d": {"e": 2}, "f": 1}, "k": 1}
    cfg.merge({"_delete_": True, "n": 3})
    assert cfg == {"n": 3}


def test_merge_replaces_what_is_no_dict_and_works_in_place():
    cfg = ConfigDict(clip=None, hooks=[1], inner={"a": 1})
    inner, options = cfg.inner, {"clip": {"max_norm": 1}, "hooks": {"0": 2}, "inner": {"b": 2}}
    cfg.merge(options)
    assert cfg == {"clip": {"max_norm": 1}, "hooks": {"0": 2}, "inner": {"a": 1, "b": 2}}
    assert cfg.inner is inner and type(cfg.clip) is ConfigDict
    assert options["inner"] == {"b": 2}


def test_build_lazy():
    tau = LazyObject("math", "tau")
    assert ConfigDict.lazy is False and ConfigDict().build_lazy(tau) == math.tau
    assert ConfigDict().build_lazy([tau]) == [tau]
    assert UnreadConfigDict.lazy is True and UnreadConfigDict().build_lazy(tau) is tau


def test_union():
    left, right = ConfigDict(b={"c": 1}), {"b": {"d": 1}}
    assert left | right == {"b": {"c": 1, "d": 1}} and left == {"b": {"c": 1}}
    assert type(right | left) is ConfigDict and right | left == {"b": {"d": 1, "c": 1}}
    assert right == {"b": {"d": 1}}
    with pytest.raises(TypeError):
        _ = left | 3


@pytest.mark.parametrize("copied", [copy.copy, ConfigDict.copy])
def test_shallow_copies_share_what_is_nested(copied):
    cfg = ConfigDict(a={"b": [1]}, lazy=lazy_pi())
    other = copied(cfg)
    other.new = 1
    assert type(other) is ConfigDict and other.a is cfg.a and "new" not in cfg
    assert isinstance(other._to_lazy_dict()["lazy"], LazyObject)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, ConfigDict.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg))]
)
def test_deep_copies_share_nothing(copied):
    cfg = ConfigDict(a={"b": [1, {"c": 2}]}, lazy=lazy_pi())
    other = copied(cfg)
    assert type(other) is ConfigDict and other == cfg and other.a.b[1].c == 2
    other.a.b[1].c = 3
    assert cfg.a.b[1].c == 2
    assert isinstance(other._to_lazy_dict()["lazy"], LazyObject)


def test_plain_dicts():
    cfg = ConfigDict(a={"b": ({"c": 1},)}, own=OwnDict(x=1))
    plain = cfg.to_dict()
    assert type(plain) is type(plain["a"]) is type(plain["a"]["b"][0]) is dict
    assert plain == cfg and type(plain["own"]) is OwnDict
    assert json.loads(json.dumps(cfg)) == {"a": {"b": [{"c": 1}]}, "own": {"x": 1}}


def test_lazy_values_are_imported_when_read():
    import math

    cfg = ConfigDict(a=lazy_pi(), b={"c": LazyAttr("pi", LazyObject("math"))})
    reads = [
        cfg.a, cfg["a"], cfg.get("a"), cfg.copy().pop("a"), cfg.values()[0], cfg.items()[0][1],
        {**cfg}["a"], dict(cfg)["a"], dict(**cfg)["a"], cfg.b.c, cfg.setdefault("a", 1),
        cfg.get("none", lazy_pi()), copy.deepcopy(cfg).a,
    ]  # fmt: skip
    assert reads == [math.pi] * len(reads)
    assert cfg.to_dict() == {"a": "math.pi", "b": {"c": "math.pi"}}
    lazy = cfg._to_lazy_dict()
    assert type(lazy["a"]) is LazyObject and type(lazy["b"]["c"]) is LazyAttr


def test_unread_config_dict_imports_nothing():
    cfg = UnreadConfigDict(a=LazyObject("not_a_module"), b={"c": LazyObject("not_a_module")})
    assert isinstance(cfg.a, LazyObject) and isinstance(cfg.b.c, LazyObject)
    assert type(cfg.b) is UnreadConfigDict


def test_to_config_dict_marks_the_outermost_types():
    cfg = {
        "a": {"type": "A", "b": {"type": "B"}},
        "c": {"x": [{"type": "C"}]},
        "d": {"type": "D", "_scope_": "own", "e": {"type": "E"}},
    }
    assert to_config_dict(cfg, "s") == {
        "a": {"type": "A", "_scope_": "s", "b": {"type": "B"}},
        "c": {"x": [{"type": "C", "_scope_": "s"}]},
        "d": {"type": "D", "_scope_": "own", "e": {"type": "E"}},
    }
    assert to_config_dict(cfg) == cfg and to_config_dict(cfg, "s", mark=False) == cfg
    assert "_scope_" not in cfg["a"]


def test_to_config_dict_shares_no_container():
    shared = ConfigDict(x=[1])
    cfg = to_config_dict({"a": shared, "b": shared})
    cfg.a.x.append(2)
    assert cfg.b.x == [1] and shared.x == [1]
