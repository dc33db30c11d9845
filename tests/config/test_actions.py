"""Config options on a command line."""

import argparse
import logging

import pytest

from fasttrain.config import DictAction
from fasttrain.config.actions import add_args


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--options", nargs="+", action=DictAction, default={})
    return parser


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1", -1), ("0.1", 0.1), ("1e-3", 0.001), ("0x10", "0x10"), ("x", "x"),
        ("true", True), ("False", False), ("None", None), ("none", "none"), ("", ""),
        ("1,2,x", [1, 2, "x"]), ("1,", [1]), ("[1,2]", [1, 2]), ("(1,2)", (1, 2)), ("(1,)", (1,)),
        ("[]", []), ("()", ()), ("((1))", ((1,),)), ("[(a,b),(c)]", [("a", "b"), ("c",)]),
        ("[1,[2,(3,x)]]", [1, [2, (3, "x")]]), (" [ 1 , 2 ] ", [1, 2]), ("x=y", "x=y"),
        ('"x y"', "x y"), ("'1'", "1"), ("[a,'b,c',\"d e\"]", ["a", "b,c", "d e"]),
        ("it's", "it's"),
        ("{x:1}", "{x:1}"), ("True,None", [True, None]),
    ],
)  # fmt: skip
def test_values(parser, text, value):
    options = parser.parse_args(["--options", f"a.b={text}"]).options
    assert options == {"a.b": value} and type(options["a.b"]) is type(value)


def test_options_add_up_and_leave_the_default_alone(parser):
    default = {"z": 1}
    parser.set_defaults(options=default)
    parsed = parser.parse_args(["--options", "a=1", "b=2", "--options", "b=3"])
    assert parsed.options == {"z": 1, "a": 1, "b": 3} and default == {"z": 1}


@pytest.mark.parametrize("text", ["(1,2", "[1,2)", "1]", "[(1,2]"])
def test_unbalanced_brackets(text):
    with pytest.raises(AssertionError, match="Imbalanced brackets exist in"):
        DictAction._parse_iterable(text)


def test_unbalanced_quotes():
    with pytest.raises(AssertionError, match="Imbalanced quotes exist in 'a"):
        DictAction._parse_iterable("'a")


def test_an_option_without_a_value(parser):
    with pytest.raises(argparse.ArgumentError, match="expected key=value, but got 'lr'"):
        parser.parse_args(["--options", "lr"])


def test_add_args(caplog):
    cfg = {"a": 1, "b": {"c": "x", "d": [1.5]}, "e": True, "f": None, "g": []}
    with caplog.at_level(logging.INFO, "fasttrain.config"):
        parser = add_args(argparse.ArgumentParser(), cfg)
    assert "cannot parse key f of type <class 'NoneType'>" in caplog.text
    parsed = vars(parser.parse_args(["--a", "2", "--b.c", "y", "--b.d", "1", "2", "--e"]))
    assert parsed == {"a": 2, "b.c": "y", "b.d": [1.0, 2.0], "e": True, "g": None}


def test_quotes_around_brackets_are_left_out():
    assert DictAction._parse_iterable('"[1,(x,y)]"') == [1, ("x", "y")]
    assert DictAction._parse_iterable("'[1,2]',3") == [[1, 2], 3]
    assert DictAction._parse_iterable('"1"') == "1"
