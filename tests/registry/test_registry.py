"""Registering, looking up and building over a tree of registries."""

import logging
import sys
from types import ModuleType

import pytest

from fasttrain.registry import DefaultScope, Registry, build_from_cfg


@pytest.fixture(autouse=True)
def no_default_scope(monkeypatch):
    monkeypatch.setattr(DefaultScope, "_instance_dict", type(DefaultScope._instance_dict)())


class Hound:
    def __init__(self, name="rex", age=1):
        self.name, self.age = name, age


class Terrier(Hound):
    pass


def make_tree():
    """dogs (mmengine) <- hounds (h) <- little (l), dogs <- samoyeds (s)."""
    dogs = Registry("dogs", scope="mmengine")
    hounds = Registry("hounds", parent=dogs, scope="h")
    little = Registry("little", parent=hounds, scope="l")
    samoyeds = Registry("samoyeds", parent=dogs, scope="s")
    return dogs, hounds, little, samoyeds


def test_a_fresh_registry():
    cats = Registry("cat")
    assert cats.name == "cat"
    assert cats.scope == __name__.split(".")[0]
    assert cats.module_dict == {} and len(cats) == 0
    assert cats.children == {} and cats.parent is None and cats.root is cats
    assert cats.build_func is build_from_cfg


def test_register_as_decorator_and_as_call():
    cats = Registry("cat")

    @cats.register_module()
    class Siamese:
        pass

    @cats.register_module(name=["sphynx", "naked"])
    class Sphynx:
        pass

    def munchkin():
        return "short"

    cats.register_module("persian")(Hound)
    assert cats.register_module(module=munchkin) is munchkin
    cats.register_module(name="many", module=Terrier)
    assert cats.module_dict == {
        "Siamese": Siamese, "sphynx": Sphynx, "naked": Sphynx, "persian": Hound,
        "munchkin": munchkin, "many": Terrier,
    }  # fmt: skip
    assert "Siamese" in cats and "siamese" not in cats
    assert cats.build({"type": "munchkin"}) == "short"


def test_a_taken_name_needs_force():
    cats = Registry("cat")
    cats.register_module(module=Hound)
    with pytest.raises(KeyError, match="Hound is already registered in cat at"):
        cats.register_module(name="Hound", module=Terrier)
    with pytest.raises(KeyError, match="Hound is already registered in cat at"):
        cats.register_module(module=Hound)
    cats.register_module(name="Hound", module=Terrier, force=True)
    assert cats.get("Hound") is Terrier


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"module": "nothing"}, "module must be Callable, but got <class 'str'>"),
        ({"name": 3}, "name must be None, an instance of str, or a sequence of str"),
        ({"name": ["a", 3]}, "name must be None, an instance of str, or a sequence of str"),
        ({"force": 1}, "force must be a boolean, but got <class 'int'>"),
    ],
)
def test_wrong_arguments_of_register_module(arguments, error):
    with pytest.raises(TypeError, match=error):
        Registry("cat").register_module(**arguments)


def test_bare_decorator_is_refused():
    with pytest.raises(TypeError, match="name must be None"):
        Registry("cat").register_module(Hound)


def test_wrong_arguments_of_a_registry():
    with pytest.raises(AssertionError, match="scope should be a str"):
        Registry("cat", scope=3)
    with pytest.raises(AssertionError, match="parent should be a Registry"):
        Registry("cat", parent="dogs")
    dogs, *_ = make_tree()
    with pytest.raises(AssertionError, match="scope h exists in dogs registry"):
        Registry("cat", parent=dogs, scope="h")
    with pytest.raises(TypeError, match=r"argument of `Registry.get` must be a str, got <class"):
        dogs.get(Hound)


def test_lookup_goes_up_and_across():
    dogs, hounds, little, samoyeds = make_tree()
    dogs.register_module(module=Hound)
    hounds.register_module(name="Fox", module=Terrier)
    samoyeds.register_module(name="Snow", module=Hound)
    assert little.get("Fox") is Terrier and little.get("Hound") is Hound
    assert little.get("h.Fox") is Terrier and little.get("mmengine.Hound") is Hound
    assert samoyeds.get("h.Fox") is Terrier
    assert dogs.get("h.Fox") is Terrier and dogs.get("h.l.Fox") is Terrier
    assert dogs.get("Fox") is None and hounds.get("Snow") is None
    assert little.get("s.Snow") is Hound and little.get("s.Hound") is Hound
    assert hounds.get("l.Fox") is Terrier and dogs.get("l.Fox") is None  # a grandchild's scope
    assert hounds.get("h.Fox") is Terrier and hounds.get("h.Hound") is None  # its own ones only
    assert little.get("mmengine.Fox") is None
    assert dogs._search_child("l") is little and dogs._search_child("x") is None
    assert little._get_root_registry() is dogs and little.root is dogs


def test_children_inherit_the_build_function():
    def build(cfg, registry):
        return cfg, registry.name

    dogs = Registry("dogs", scope="a", build_func=build)
    child = Registry("small", scope="b", parent=dogs)
    other = Registry("big", scope="c", parent=dogs, build_func=build_from_cfg)
    assert child.build(5) == (5, "small")
    assert other.build_func is build_from_cfg


def test_a_dotted_path_is_imported():
    import collections

    assert Registry("cat").get("collections.OrderedDict") is collections.OrderedDict
    assert Registry("cat").get("collections.Nothing") is None


def test_an_error_within_an_imported_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_zoo.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        Registry("cat").get("broken_zoo.Cat")


def test_split_scope_key():
    assert Registry.split_scope_key("a.b.C") == ("a", "b.C")
    assert Registry.split_scope_key("C") == (None, "C")


def test_scope_that_cannot_be_inferred(caplog):
    namespace = {"Registry": Registry, "__name__": ""}
    with caplog.at_level(logging.WARNING, "fasttrain.registry"):
        exec("scope = (lambda: Registry.infer_scope())()", namespace)
    assert namespace["scope"] == "mmengine"
    assert "when scope can not be inferred" in caplog.text


def test_switching_scope(caplog):
    dogs, hounds, little, _ = make_tree()
    with little.switch_scope_and_registry("h") as found:
        assert found is hounds
        assert DefaultScope.get_current_instance().scope_name == "h"
    with little.switch_scope_and_registry(None) as found:
        assert found is little
    assert DefaultScope.get_current_instance() is None
    with (
        caplog.at_level(logging.WARNING, "fasttrain.registry"),
        dogs.switch_scope_and_registry("nowhere") as found,
    ):
        assert found is dogs
    assert 'Failed to search registry with scope "nowhere" in the "dogs" registry' in caplog.text


def test_default_scope_chooses_the_registry():
    dogs, hounds, _, _ = make_tree()
    dogs.register_module(name="Fox", module=Hound)
    hounds.register_module(name="Fox", module=Terrier)
    assert type(dogs.build({"type": "Fox"})) is Hound
    assert type(dogs.build({"type": "Fox", "_scope_": "h"})) is Terrier
    DefaultScope.get_instance("here", scope_name="h")
    assert type(dogs.build({"type": "Fox"})) is Terrier
    assert type(dogs.build({"type": "Fox", "_scope_": "mmengine"})) is Hound


def test_an_unknown_scope_is_imported(tmp_path, monkeypatch, caplog):
    root = Registry("zoo", scope="mmengine")
    bridge = ModuleType("zoo_bridge")
    bridge.root = root
    monkeypatch.setitem(sys.modules, "zoo_bridge", bridge)
    (tmp_path / "zoo_pack").mkdir()
    (tmp_path / "zoo_pack/__init__.py").write_text("")
    (tmp_path / "zoo_pack/registry.py").write_text(
        "from zoo_bridge import root\nfrom fasttrain.registry import Registry\n"
        "ZOO = Registry('zoo', parent=root)\nZOO.register_module('Lion')(dict)\n"
    )
    (tmp_path / "zoo_bad").mkdir()
    (tmp_path / "zoo_bad/__init__.py").write_text("")
    (tmp_path / "zoo_bad/registry.py").write_text("import not_a_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert root.get("zoo_pack.Lion") is dict
    with root.switch_scope_and_registry("zoo_pack") as found:
        assert found.scope == "zoo_pack"
    with caplog.at_level(logging.WARNING, "fasttrain.registry"):
        assert root.get("zoo_bad.Lion") is None
    assert "cannot import `zoo_bad.registry`: No module named 'not_a_package'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fasttrain.registry"):
        assert root.get("mmrotate.Lion") is None
    assert "please install it by `pip install mmrotate`" in caplog.text


def test_locations_are_imported_once_and_again_after_an_error(tmp_path, monkeypatch):
    cats = Registry("cat", locations=["cat_place"])
    with pytest.raises(ModuleNotFoundError, match="cat_place"):
        cats.get("Tom")
    bridge = ModuleType("cat_bridge")
    bridge.cats = cats
    monkeypatch.setitem(sys.modules, "cat_bridge", bridge)
    (tmp_path / "cat_place.py").write_text(
        "from cat_bridge import cats\nassert cats.get('Tom') is None\n"
        "@cats.register_module()\nclass Tom: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert cats.get("Tom").__name__ == "Tom"
    assert cats._imported
    cats.import_from_location()
    assert len(cats) == 1


def stand_ins():
    ours = type("Painter", (), {"__module__": "fasttrain.visualization.visualizer"})
    theirs = type("Painter", (), {"__module__": "mmengine.visualization.visualizer"})
    return ours, theirs


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_own_class_stands_beside_the_installed_one_of_the_same_name(order):
    registry = Registry("visualizer", scope="mmengine")
    pair = stand_ins()
    for index in order:
        registry.register_module(module=pair[index])
    assert registry.get("Painter") is pair[0]


def test_other_packages_do_collide():
    registry = Registry("visualizer", scope="mmengine")
    ours, _ = stand_ins()
    registry.register_module(module=ours)
    other = type("Painter", (), {"__module__": "mmdet.visualizer"})
    with pytest.raises(KeyError, match="Painter is already registered in visualizer at fasttrain"):
        registry.register_module(module=other)


def test_repr_is_a_table():
    cats = Registry("cat")
    cats.register_module(name="tom", module=dict)
    lines = repr(cats).splitlines()
    assert lines[0].strip() == "Registry of cat"
    assert any(line.startswith("│ tom") and "<class 'dict'>" in line for line in lines)
    assert "\x1b" not in repr(cats)
