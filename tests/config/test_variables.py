"""References within the text of a config."""

import logging

import pytest

from fasttrain.config.variables import (
    base_value,
    fill_base_references,
    fill_environment,
    fill_predefined,
    hide_base_references,
)


def test_predefined():
    text = "{{fileDirname}}|{{ fileBasename }}|{{fileBasenameNoExtension }}|{{ fileExtname}}|{{x}}"
    assert fill_predefined(text, "/a/b/c.d.py") == "/a/b|c.d.py|c.d|.py|{{x}}"
    assert fill_predefined("{{fileDirname}}", r"C:\new") == ""
    assert fill_predefined("{{ fileDirname }}", "C:\\new/c.py") == "C:/new"


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("FT_SET", "42")
    monkeypatch.setenv("FT_EMPTY", "")
    monkeypatch.delenv("FT_UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{$FT_SET:1}}", "42"),
        ("'{{ $FT_SET : 1 }}'", "'42'"),
        ("{{'$FT_SET:1'}}", "42"),
        ('{{ "$FT_SET:1" }}', "42"),
        ("{{$FT_EMPTY:1}}", ""),
        ("{{$FT_UNSET:/a/b-c.d:e f}}", "/a/b-c.d:e f"),
        ("{{' $FT_UNSET:80 '}}", "80"),
        ("{{$FT_UNSET:'x'}}", "'x'"),
        ("{{$FT_UNSET:1}}{{$FT_SET:}}", "142"),
        ("{{$FT_SET}} {$FT_SET:1} {{FT_SET:1}}", "{{$FT_SET}} {$FT_SET:1} {{FT_SET:1}}"),
    ],
)
def test_environment(environment, text, filled):
    assert fill_environment(text)[0] == filled


def test_environment_tells_what_it_used(environment, caplog):
    with caplog.at_level(logging.INFO, "fasttrain.config"):
        _, used = fill_environment("{{$FT_SET:1}} {{$FT_UNSET:2}} {{$FT_SET:3}}")
    assert used == {"FT_SET": "42"}
    assert caplog.messages == ["the config uses the environment variable `FT_SET`: 42"]


def test_environment_without_default(environment):
    with pytest.raises(KeyError, match="`FT_UNSET` cannot be found in `os"):
        fill_environment("a = '{{$FT_UNSET:}}'")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a = {{_base_.b}}", True),
        ("a = '{{_base_.b}}'", False),
        ('a = "it\'s {{ _base_.b }} here"', False),
        ("a = 'x' + {{_base_.b}}", True),
        (r"a = 'it\'s {{_base_.b}}'", False),
        ("a = 1  # it's {{_base_.b}}", True),
        ("b = 'open\na = {{_base_.b}}", True),
    ],
)
def test_references_become_tokens(text, quoted):
    hidden, tokens = hide_base_references(text)
    ((token, key),) = tokens.items()
    assert key == "b" and token.startswith("_b_")
    start, end = text.index("{{"), text.index("}}") + 2
    assert hidden == text[:start] + (f'"{token}"' if quoted else token) + text[end:]


def test_what_is_no_reference():
    for text in ("{{_base_}}", "{{_base_.a[0]}}", "{ {_base_.a} }", "_base_.a"):
        assert hide_base_references(text) == (text, {})


def test_tokens_become_values():
    base = {"x": {"y": [1]}, "n": 3}
    tokens = {"_x.y_1": "x.y", "_n_2": "n"}
    cfg = {"a": "_x.y_1", "b": ["_n_2", ("_n_2",)], "c": "pre _n_2 post _x.y_1", "_n_2": 1, "d": 5}
    assert fill_base_references(cfg, tokens, base) == {
        "a": [1], "b": [3, (3,)], "c": "pre 3 post [1]", "_n_2": 1, "d": 5,
    }  # fmt: skip
    assert cfg["a"] == "_x.y_1"


def test_a_reference_to_nothing():
    with pytest.raises(KeyError) as caught:
        base_value({"a": {"b": 1}}, "a.c")
    assert caught.value.args[0] == (
        "'c' of the reference {{_base_.a.c}} is not in the base configs; there is: ['b']"
    )
    with pytest.raises(KeyError, match="there is: <class 'int'>"):
        base_value({"a": 1}, "a.c")
