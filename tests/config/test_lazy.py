"""Stand-ins for what is imported later."""

import copy
import pickle

import pytest

from fasttrain.config.lazy import LazyAttr, LazyObject


def test_modules_names_and_attributes():
    module = LazyObject("xml.etree")
    name = LazyObject("xml.etree.ElementTree", "Element", "a.py, line 3")
    attribute = LazyObject("xml").etree.ElementTree.Element
    assert (str(module), repr(name), repr(attribute)) == ("xml.etree", "Element", "Element")
    assert (module.module, name.module) == ("xml.etree", "xml.etree.ElementTree")
    assert attribute.module == "xml.etree.ElementTree"
    assert name.dotted_path == attribute.dotted_path == "xml.etree.ElementTree.Element"
    from xml.etree.ElementTree import Element

    assert name.build() is Element and attribute.build() is Element
    assert module.build().__name__ == "xml.etree" and isinstance(attribute, LazyAttr)


def test_several_modules_of_a_package():
    import xml

    lazy = LazyObject(["xml.sax", "xml.dom"])
    assert (lazy.module, str(lazy), lazy.build()) == ("xml", "xml", xml)
    assert lazy.dom.build() is xml.dom


def test_submodules_are_imported_on_the_way(tmp_path, monkeypatch):
    (tmp_path / "lazy_pack").mkdir()
    (tmp_path / "lazy_pack/__init__.py").write_text("")
    (tmp_path / "lazy_pack/part.py").write_text("size = 3\n")
    (tmp_path / "lazy_pack/broken.py").write_text("import not_a_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    pack = LazyObject("lazy_pack", location="a.py, line 3")
    assert pack.part.size.build() == 3
    with pytest.raises(ModuleNotFoundError, match="not_a_module"):
        pack.broken.size.build()
    with pytest.raises(ImportError, match="import size from lazy_pack in a"):
        pack.size.build()


@pytest.mark.parametrize(
    ("lazy", "message"),
    [
        (LazyObject("not_a.module", None, "a.py, line 3"), "not_a.module in a.py, line 3 for No"),
        (LazyObject("math", "tau2", "a.py, line 3"), "tau2 from math in a.py, line 3"),
        (LazyObject("math", "pi", "a.py, line 3").x, "x from math.pi in a.py, line 3"),
    ],
)
def test_what_cannot_be_imported(lazy, message):
    with pytest.raises(ImportError, match=f"Failed to import {message}"):
        lazy.build()


@pytest.mark.parametrize("lazy", [LazyObject("math", "sin", "a.py, line 3"), LazyObject("m").sin])
def test_calling_is_refused(lazy):
    with pytest.raises(RuntimeError, match=r"cannot be called in a config.*write dict\(type=sin"):
        lazy(1)


def test_special_names_are_not_attributes():
    with pytest.raises(AttributeError, match="'math' is not imported yet and has no '__len__'"):
        _ = LazyObject("math").__len__


@pytest.mark.parametrize("lazy", [LazyObject("math", "pi", "here"), LazyObject("math").pi])
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda lazy: pickle.loads(pickle.dumps(lazy))]
)
def test_copies(lazy, copied):
    other = copied(lazy)
    assert type(other) is type(lazy) and other == lazy and hash(other) == hash(lazy)
    assert other.location == lazy.location and other.build() == lazy.build()


def test_equality_is_by_path():
    assert LazyObject("math", "pi") == LazyObject("math").pi != LazyObject("math", "e")
    assert LazyObject("math", "pi") != "math.pi"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LazyObject(3),
            "module should be `str`, `list`, or `tuple`, but got",
        ),
        (lambda: LazyObject("a", 3), "imported should be `str` or None, but got <class 'int'>"),
        (lambda: LazyAttr(3, LazyObject("a")), "name should be `str`, but got <class 'int'>"),
        (lambda: LazyAttr("a", 3), "source should be LazyObject or LazyAttr, but got"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(TypeError, match=message):
        make()
