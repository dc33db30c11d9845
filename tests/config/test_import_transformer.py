"""Rewriting the imports of a lazy config."""

import ast

import pytest

from fasttrain.config.import_transformer import ImportTransformer, _gather_abs_import_lazyobj
from fasttrain.config.language import ConfigParsingError
from fasttrain.config.lazy import LazyAttr, LazyObject


def run(text, bases=None):
    namespace = {"LazyObject": LazyObject}
    transformer = ImportTransformer(namespace, bases, "f.py")
    tree, gathered = _gather_abs_import_lazyobj(transformer.visit(ast.parse(text)), "f.py")
    exec(compile(tree, "f.py", "exec"), namespace)
    namespace = {name: value for name, value in namespace.items() if not name.startswith("__")}
    del namespace["LazyObject"]
    return namespace, transformer.imported_obj | gathered


def test_imports_bind_stand_ins():
    namespace, imported = run(
        '"""A config."""\nfrom __future__ import annotations\nimport os\nfrom math import pi\n'
        "import zoo.cats\nimport zoo.dogs as d, zoo.mice\nfrom zoo.birds import Duck, Goose as G\n"
        "x = zoo.cats.Tom\ny = d.Rex\nz = os.path.join('a', str(int(pi)))\n"
    )
    assert namespace["z"] == "a/3"
    assert type(namespace["zoo"]) is LazyObject and type(namespace["x"]) is LazyAttr
    assert namespace["zoo"]._module == ["zoo.cats", "zoo.mice"]
    paths = {name: namespace[name].dotted_path for name in ("zoo", "d", "Duck", "G", "x", "y")}
    assert paths == {
        "zoo": "zoo", "d": "zoo.dogs", "Duck": "zoo.birds.Duck", "G": "zoo.birds.Goose",
        "x": "zoo.cats.Tom", "y": "zoo.dogs.Rex",
    }  # fmt: skip
    assert namespace["zoo"].location == "f.py, line 5" and namespace["G"].location == "f.py, line 7"
    assert imported >= {"os", "pi", "zoo", "d", "Duck", "G"}


def test_imports_within_functions():
    namespace, _ = run("def f():\n    from zoo import Cat\n    import zoo\n    return Cat\nx = f()")
    assert namespace["x"].dotted_path == "zoo.Cat" and namespace["zoo"].dotted_path == "zoo"


def test_base_imports_bind_values():
    bases = {".base": {"a": 1, "b": 2}, "pack.configs.x": {"c": 3}, ".empty": {}}
    namespace, imported = run(
        "a = 0\nfrom .base import *\nb = 5\nfrom .base import a as first\n"
        "from pack.configs.x import c\nif True:\n    from .empty import *\n", bases
    )  # fmt: skip
    assert namespace == {"a": 1, "b": 5, "first": 1, "c": 3} and imported == set()
    with pytest.raises(ConfigParsingError, match=r"f.py, line 1: the base config .base has no 'z'"):
        run("from .base import z", bases)


def test_read_base_is_no_stand_in():
    namespace, imported = run("from mmengine.config import read_base, Config")
    assert list(namespace) == ["Config"] and imported == {"Config"}
    assert run("from fasttrain.config import read_base")[0] == {}


@pytest.mark.parametrize("text", ["from zoo import *", "a = 1\nfrom .zoo import Cat"])
def test_illegal_imports(text):
    line = text.count("\n") + 1
    with pytest.raises(ConfigParsingError, match=rf"f.py, line {line}: Illegal syntax in config!"):
        run(text)
