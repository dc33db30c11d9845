"""Parsing and running the Python text of a config."""

import ast
import traceback

import pytest

from fasttrain.config import python_text
from fasttrain.config.language import ConfigParsingError


def test_a_syntax_error_names_file_and_line():
    with pytest.raises(SyntaxError) as caught:
        python_text.parse("a = 1\nb = = 2\n", "some/config.py")
    error = caught.value
    assert error.msg == (
        "There are syntax errors in config file some/config.py, line 2: invalid syntax"
    )
    assert (error.filename, error.lineno, error.text) == ("some/config.py", 2, "b = = 2\n")


def test_a_traceback_shows_the_line_of_the_config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("a = 1\n\nb = a + nothing  # here\n")
    tree = python_text.parse(path.read_text(), str(path))
    with pytest.raises(NameError) as caught:
        python_text.run(tree, str(path), {})
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == (str(path), 3)
    assert frame.line == "b = a + nothing  # here"


def test_what_of_a_namespace_is_config():
    import math

    namespace = python_text.run(
        python_text.parse(
            "import os\nfrom functools import partial\nfrom math import pi, sin\n"
            "def f(): return 3\nclass K: pass\n_a = f()\n__b = 1\nc = K\nd = partial(f)\n", "x.py"
        ),
        "x.py",
        {},
    )  # fmt: skip
    assert namespace["__file__"] == "x.py"
    tree = python_text.parse("from functools import partial\nfrom math import pi, sin\n", "x.py")
    values = python_text.config_values(namespace, python_text.imported_names(tree.body))
    assert set(values) == {"pi", "K", "_a", "c", "d"}
    assert values["_a"] == 3 and values["pi"] == math.pi


def test_imported_names():
    tree = ast.parse("import a.b, c as d\nfrom e import f as g, h\nx = 1")
    assert python_text.imported_names(tree.body) == {"a", "d", "g", "h"}


@pytest.mark.parametrize(
    ("text", "bases"),
    [
        ("a = 1", []),
        ("_base_ = 'x.py'", ["x.py"]),
        ("_base_ = ['x.py', './' + 'y.py']", ["x.py", "./y.py"]),
        ("_base_ = ('x.py',)", ["x.py"]),
    ],
)
def test_take_bases(text, bases):
    tree = ast.parse(text + "\nb = 2")
    assert python_text.take_bases(tree, "f.py") == bases
    assert "_base_" not in ast.unparse(tree) and "b = 2" in ast.unparse(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_ = 3", r"f.py: `_base_` must be a path or a list of paths, but got 3"),
        ("x = 'a.py'\n_base_ = x", r"f.py, line 2: `_base_` is read before the rest of the config"),
        ("if True:\n    _base_ = 'x'", r"f.py, line 2: `_base_` must be assigned at the top level"),
    ],
)
def test_wrong_bases(text, message):
    with pytest.raises(ConfigParsingError, match=message):
        python_text.take_bases(ast.parse(text), "f.py")


@pytest.mark.parametrize(
    ("text", "lazy"),
    [
        ("a = 1", False),
        ("import os, sys\nfrom itertools import chain", False),
        ("from mmengine.config import read_base", False),
        ("from mmengine import Config", False),
        ("from fasttrain.config import Config, ConfigDict", False),
        ("from mmengine.dataset import DefaultSampler", True),
        ("from mmengine import runner", True),
        ("import torch", True),
        ("import os\nfrom torch import nn", True),
        ("from . import x", True),
        ("def f():\n    import torch", True),
        ("import torch\n_base_ = 'x.py'", False),
        ("with read_base():\n    from .x import *", True),
        ("with read_base():\n    pass", True),
        ("a = 'with read_base():'", False),
        ("a = {{$N:3}}\nimport torch", True),
        ("a = {{$N:3}}", False),
    ],
)
def test_lazy_configs_are_told_apart(text, lazy):
    assert python_text.uses_lazy_imports(text, "f.py") is lazy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("with open('x') as f:\n    pass", "line 1: Only `read_base` context manager can be used"),
        ("a = 1\nwith read_base(), x():\n    pass", "line 2: Only `read_base` context manager"),
        ("with read_base():\n    import a", r"line 2: Illegal syntax in config file! Only `from"),
    ],
)
def test_what_with_statements_may_do(text, message):
    with pytest.raises(ConfigParsingError, match=message):
        python_text.uses_lazy_imports(text, "f.py")


def test_lazy_detection_of_broken_text():
    with pytest.raises(SyntaxError, match=r"There are syntax errors in config file f.py, line 2"):
        python_text.uses_lazy_imports("a = 1\nb = = {{$N:3}}", "f.py")
