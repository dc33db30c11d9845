"""Python text of a config."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain.config import Config
from fasttrain.config.formatting import format_config, format_scalar
from fasttrain.config.lazy import LazyObject


def test_what_fits_stays_on_a_line_and_the_rest_is_exploded():
    cfg = {
        "zoo": 1,
        "model": {"type": "Net", "stages": [{"depth": depth, "width": 64} for depth in (1, 2, 3)]},
        "size": (1,),
        "empty": [{}, [], ()],
    }
    assert format_config(cfg, width=40) == (
        "empty = [dict(), [], ()]\n"
        "model = dict(\n"
        "    stages=[\n"
        "        dict(depth=1, width=64),\n"
        "        dict(depth=2, width=64),\n"
        "        dict(depth=3, width=64),\n"
        "    ],\n"
        "    type='Net',\n"
        ")\n"
        "size = (1,)\n"
        "zoo = 1\n"
    )
    assert all(line.count("\n") == 0 for line in format_config(cfg, math.inf).splitlines())
    assert len(format_config(cfg, math.inf).splitlines()) == 4


def test_keys_that_are_no_names():
    cfg = {"a-b": 1, "class": {"if": 1, "ok": 2}, 3: 4}
    assert format_config(cfg) == (
        "globals()[3] = 4\nglobals()['a-b'] = 1\nglobals()['class'] = {'if': 1, 'ok': 2}\n"
    )
    assert Config.fromstring(format_config(cfg), ".py")._cfg_dict == cfg


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("-inf"), "float('-inf')"),
        (1e-05, "1e-05"),
        (b"x", "b'x'"),
        (1 + 2j, "(1+2j)"),
        (range(3), "range(0, 3)"),
        ("it's", '"it\'s"'),
        (None, "None"),
        (int, "'builtins.int'"),
        (math.sin, "'math.sin'"),
        (LazyObject("torch.optim", "SGD"), "'torch.optim.SGD'"),
    ],
)
def test_scalars(value, text):
    assert format_scalar(value) == text


def test_nan_and_sets_load_back():
    text = format_config({"n": float("nan"), "s": {2, 1}, "f": frozenset("a"), "e": set()})
    assert text == "e = set()\nf = frozenset({'a'})\nn = float('nan')\ns = {1, 2}\n"
    cfg = Config.fromstring(text, ".py")
    assert math.isnan(cfg.n) and (cfg.s, cfg.f, cfg.e) == ({1, 2}, frozenset("a"), set())


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.binary(max_size=4)
)
names = st.text("abcxyz_-1 ", min_size=1, max_size=6)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(names | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(names.map(lambda name: f"k{name}"), values, max_size=4))
def test_text_loads_back_to_the_same_config(cfg):
    for wide in (True, False):
        text = Config(cfg, format_python_code=wide).pretty_text
        loaded = Config.fromstring(text, ".py")
        assert loaded._cfg_dict == cfg
        assert loaded.pretty_text == Config(cfg).pretty_text
