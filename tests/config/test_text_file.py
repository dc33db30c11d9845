"""Configs with bases named by `_base_`."""

import json
import os
import textwrap

import pytest

from fasttrain.config import Config, ConfigDict
from fasttrain.config.text_file import TextLoader, checked_extension


@pytest.fixture
def load(tmp_path):
    def load_files(files, **kwargs):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text) if isinstance(text, str) else json.dumps(text))
        return Config.fromfile(tmp_path / next(iter(files)), **kwargs)

    return load_files


BASES = {
    "b1.py": "item1 = [1, 2]\nitem2 = dict(a=0, b='s')\n",
    "b2.yaml": "item3: true\nitem4: {a: {b: [1, 2]}}\n",
    "b3.json": {"item5": None, "item6": {"x": 1.5}},
}
MERGED = {
    "item1": [1, 2], "item2": {"a": 0, "b": "t", "n": 1}, "item3": True, "item4": {"z": 3},
    "item5": None, "item6": {"x": 1.5},
}  # fmt: skip
CHILD = {"item2": {"b": "t", "n": 1}, "item4": {"_delete_": True, "z": 3}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "main.py",
            "_base_ = ['./b1.py', 'b2.yaml', './b3.json']\n"
            "item2 = dict(b='t', n=1)\nitem4 = dict(_delete_=True, z=3)\n",
        ),
        ("main.json", {"_base_": ["b1.py", "b2.yaml", "b3.json"], **CHILD}),
        (
            "main.yaml",
            "_base_: [b1.py, b2.yaml, b3.json]\n"
            "item2: {b: t, n: 1}\nitem4: {_delete_: true, z: 3}\n",
        ),
    ],
)
def test_several_bases_of_every_format(load, name, text):
    cfg = load({name: text, **BASES})
    assert cfg._cfg_dict == MERGED and type(cfg.item2) is ConfigDict


def test_nested_bases_in_other_folders(load):
    cfg = load({
        "main.py": "_base_ = 'sub/middle.yml'\nb = dict(y=2)",
        "sub/middle.yml": "_base_: ../low.py\nb: {x: 1}\nc: '{{fileDirname}}'\n",
        "low.py": "a = '{{fileBasename}}'\nb = dict(w=0)\n",
    })  # fmt: skip
    folder = os.path.dirname(cfg.filename)
    assert cfg._cfg_dict == {"a": "low.py", "b": {"w": 0, "x": 1, "y": 2}, "c": f"{folder}/sub"}


def test_file_variables(load):
    text = "a = '{{fileDirname}}|{{ fileBasename }}|{{fileBasenameNoExtension}}|{{ fileExtname}}'"
    cfg = load({"main.py": text})
    assert cfg.a == f"{os.path.dirname(cfg.filename)}|main.py|main|.py"
    assert load({"main.py": text}, use_predefined_variables=False).a.startswith("{{fileDirname}}")


def test_environment_variables(load, monkeypatch):
    monkeypatch.setenv("FT_LR", "0.5")
    files = {
        "main.py": "_base_ = 'b.yaml'\nlr = {{$FT_LR:1}}\nname = '{{$FT_NAME:net}}'\n",
        "b.yaml": "factor: {{$FT_LR:2}}\nother: {{$FT_OTHER:3}}\n",
    }
    cfg = load(files)
    assert cfg._cfg_dict == {"factor": 0.5, "other": 3, "lr": 0.5, "name": "net"}
    assert cfg.env_variables == {"FT_LR": "0.5"}
    kept = load({"main.py": "lr = '{{$FT_LR:1}}'"}, use_environment_variables=False)
    assert kept.lr == "{{$FT_LR:1}}" and kept.env_variables == {}


def test_references_to_base_values(load):
    base = "a = 1\nb = dict(c=2, d=dict(f=[1, dict(g=3)]))\n"
    cfg = load({
        "main.py": (
            "_base_ = './b.py'\nx = {{_base_.b.c}}\n"
            "y = dict(z=[{{ _base_.b.d }}, '{{_base_.a}}'])\n"
            "s = 'pre {{_base_.a}} post'\nw = _base_.b.d.f[1].g\nt = '{{_base_.b.d}}'\n"
        ),
        "b.py": base,
    })  # fmt: skip
    d = {"f": [1, {"g": 3}]}
    assert cfg._cfg_dict == {
        "a": 1, "b": {"c": 2, "d": d}, "x": 2, "y": {"z": [d, 1]}, "s": "pre 1 post", "w": 3,
        "t": d,
    }  # fmt: skip
    cfg.t.f.append(2)
    assert cfg.b.d == d
    cfg = load({"main.yaml": "_base_: ./b.py\nx: '{{_base_.b.c}}'\ny: {{ _base_.b.d }}\n"})
    assert (cfg.x, cfg.y) == (2, d)
    cfg = load({"main.json": '{"_base_": "b.py", "x": "{{_base_.b.c}}", "y": {{_base_.b.d}}}'})
    assert (cfg.x, cfg.y) == (2, d)


def test_base_values_may_be_changed_in_place(load):
    cfg = load({
        "main.py": "_base_ = 'b.py'\n_base_.hooks[0].epoch = 5\nb = _base_.b\nb.c = 9\n",
        "b.py": "hooks = [dict(epoch=1)]\nb = dict(c=2)\n",
    })  # fmt: skip
    assert cfg._cfg_dict == {"hooks": [{"epoch": 5}], "b": {"c": 9}}


def test_bases_of_another_package_get_its_scope(load, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    cfg = load({
        "main.py": "_base_ = ['shop_pack::nets/net.py', './own.py']\nmodel = dict(depth=2)",
        "own.py": "hook = dict(type='Hook')",
        "shop_pack/__init__.py": "raise RuntimeError('not to be imported')",
        "shop_pack/.mim/configs/nets/net.py":
            "model = dict(type='Net', depth=1, head=dict(type='Head'))\n",
    })  # fmt: skip
    assert cfg._cfg_dict == {
        "model": {"type": "Net", "depth": 2, "head": {"type": "Head"}, "_scope_": "shop_pack"},
        "hook": {"type": "Hook"},
    }


def test_text_of_the_whole_chain(load, tmp_path):
    cfg = load({"main.py": "_base_ = 'b.py'\nq = 1", "b.py": "a = 1\n"})
    assert cfg.text == f"{tmp_path}/b.py\na = 1\n\n{tmp_path}/main.py\n_base_ = 'b.py'\nq = 1"


def test_deprecated_bases_warn(load):
    files = {
        "main.py": "_base_ = 'old.py'\nb = 1",
        "old.py": "_deprecation_ = dict(expected='new.py')\na = 1",
    }
    with pytest.warns(DeprecationWarning, match=r"old.py will be deprecated.*use new.py instead"):
        assert load(files)._cfg_dict == {"a": 1, "b": 1}


def test_imports_of_a_text_config_are_not_values(load):
    cfg = load({
        "main.py": (
            "_base_ = 'b.py'\nimport torch, os\nfrom functools import partial\n"
            "from fasttrain.config import Config\ncfg = Config(dict(x=1))\n"
            "n = torch.ones(2).sum()\n"
            "double = lambda x: 2 * x\nm = double(3)"
        ),
        "b.py": "",
    })  # fmt: skip
    assert set(cfg) == {"cfg", "n", "m"} and cfg.n == 2 and cfg.m == 6 and cfg.cfg.x == 1


def test_small_files(load):
    assert load({"main.py": ""})._cfg_dict == {}
    assert load({"main.yaml": "# nothing\n"})._cfg_dict == {}
    assert load({"main.yml": "1: 2\na: {3: 4}\n"})._cfg_dict == {1: 2, "a": {3: 4}}
    assert load({"main.py": "# -*- coding: utf-8 -*-\na = 'é中'\n"}).a == "é中"


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"a.py": "_base_ = 'no.py'"}, FileNotFoundError, r"/no.py, which \S*a.py names in"),
        ({"a.txt": "a = 1"}, OSError, "Only py/yml/yaml/json type are supported now! Got .*a.txt"),
        ({"a.py": "_base_ = 'b.ini'", "b.ini": ""}, OSError, "supported now! Got .*b.ini"),
        ({"a.py": "a = 1\nb = (\n"}, SyntaxError, r"a.py, line 2: '\(' was never closed"),
        ({"a.py": "_base_ = 'b.py'", "b.py": "= 1"}, SyntaxError, r"b.py, line 1: invalid syntax"),
        ({"a.yaml": "a: [1\n"}, Exception, r'in ".*a.yaml", line 2'),
        ({"a.json": "{'a': 1}"}, ValueError, r"a.json: Expecting property name"),
        ({"a.yaml": "- 1\n"}, RuntimeError, r"a.yaml: a config must have keys at its top level"),
        ({"a.yaml": "_base_: 3\n"}, RuntimeError, r"a.yaml: `_base_` must be a path or a list of"),
        (
            {"a.py": "_base_ = ['b.py', 'c.py']", "b.py": "x = 1", "c.py": "x = 2"},
            KeyError, r"Duplicate key is not allowed among bases. Duplicate keys: {'x'} in \S*c.py",
        ),
        (
            {"a.py": "_base_ = 'b.py'\nx = dict(y=1)", "b.py": "x = 1"},
            TypeError, r"x={'y': 1} in child config cannot inherit from base because x is a dict",
        ),
        ({"a.py": "_base_ = 'b.py'\nx = {{_base_.n}}", "b.py": ""}, KeyError, "'n' of the"),
        ({"a.py": "_base_ = 'b.py'", "b.py": "_base_ = 'a.py'"}, RuntimeError, "configs name each"),
        ({"a.py": "_base_ = 'no_pack::x.py'"}, ModuleNotFoundError, "Package no_pack is not"),
        ({"a.py": "_base_ = 'json::x.py'"}, FileNotFoundError, "the config 'x.py' is neither"),
        ({"a.py": "filename = 1"}, KeyError, "filename is reserved for config file"),
    ],
)  # fmt: skip
def test_errors(load, files, error, message):
    with pytest.raises(error, match=message):
        load(files)


def test_a_lazy_base_read_as_ordinary_python(tmp_path):
    (tmp_path / "a.py").write_text("_base_ = 'b.py'\nx = 1")
    (tmp_path / "b.py").write_text("import torch\ny = torch.ones(1).item()")
    with pytest.raises(RuntimeError, match="imports a module that does not come with Python"):
        Config.fromfile(tmp_path / "a.py")
    cfg = Config.fromfile(tmp_path / "a.py", lazy_import=False)
    assert cfg._cfg_dict == {"x": 1, "y": 1.0}


def test_remote_files():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/place/main.py", b"_base_ = './b.yaml'\nx = {{_base_.y}}\n")
    memory.pipe("/place/b.yaml", b"y: 3\n")
    cfg = Config.fromfile("memory://place/main.py")
    assert cfg._cfg_dict == {"y": 3, "x": 3}
    loaded = TextLoader().load_file("memory://place/b.yaml")
    assert loaded.cfg == {"y": 3} and loaded.text.startswith("memory://place/b.yaml\n")


def test_no_file_is_left_behind(load, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    load({"main.py": "_base_ = 'b1.py'\nx = {{_base_.item1}}", **BASES})
    Config.fromstring("a = 1", ".py")
    assert os.listdir(tmp_path / "tmp") == []


def test_extensions():
    assert checked_extension("a/b.c.yaml") == ".yaml"
    with pytest.raises(OSError, match="Only py/yml/yaml/json type are supported now! Got a/b"):
        checked_extension("a/b")
