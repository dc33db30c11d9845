"""The config class: what it is made from, how it is read, changed, copied and written."""

import copy
import os
import pickle
import sys

import pytest
import torch

from fasttrain.config import Config, ConfigDict
from fasttrain.config.config import BASE_KEY, DELETE_KEY, RESERVED_KEYS

VALUES = {"a": 1, "b": {"c": [1, {"d": "x"}], "e": (1, 2)}, "f": None}


def test_acts_as_its_values():
    cfg = Config(VALUES)
    assert cfg.a == 1 and cfg["b"].c[1].d == "x" and type(cfg._cfg_dict) is ConfigDict
    assert len(cfg) == 3 and list(cfg) == ["a", "b", "f"] and "a" in cfg and "z" not in cfg
    assert cfg.get("z", 5) == 5 and set(cfg.keys()) == {"a", "b", "f"}
    assert cfg.pop("a") == 1 and cfg.setdefault("g", {"h": 1}).h == 1
    assert dict(cfg.items()) == {"b": VALUES["b"], "f": None, "g": {"h": 1}}
    assert VALUES["a"] == 1


def test_writing():
    cfg = Config()
    cfg.a = {"b": 1}
    cfg["c"] = [{"d": 1}]
    cfg._hidden = 1
    cfg.update({"a": {"e": 2}})
    assert cfg._cfg_dict == {"a": {"b": 1, "e": 2}, "c": [{"d": 1}], "_hidden": 1}
    assert cfg.c[0].d == 1
    del cfg.a, cfg["c"]
    assert list(cfg) == ["_hidden"]


def test_what_is_missing():
    cfg = Config(VALUES)
    for owner in (cfg, cfg.b):
        with pytest.raises(AttributeError, match="'ConfigDict' object has no attribute 'nope'"):
            _ = owner.nope
    with pytest.raises(KeyError, match="'nope'"):
        _ = cfg["nope"]


def test_wrong_values():
    for value in ([1], 3, "a = 1"):
        with pytest.raises(TypeError, match=r"cfg_dict must be a dict, but got <class"):
            Config(value)
    for key in RESERVED_KEYS:
        with pytest.raises(KeyError, match=f"{key} is reserved for config file"):
            Config({key: 1})


def test_what_is_known_of_the_file(tmp_path):
    empty = Config()
    assert (empty.filename, empty.text, empty.env_variables, len(empty)) == (None, "", {}, 0)
    cfg = Config({"a": 1}, cfg_text="text", env_variables={"A": "1"})
    assert (cfg.text, cfg.env_variables, cfg._text) == ("text", {"A": "1"}, "text")
    path = tmp_path / "a.py"
    path.write_text("a = 1")
    cfg = Config({"a": 1}, filename=path)
    assert (cfg.filename, cfg._filename, cfg.text) == (str(path), str(path), "a = 1")
    assert repr(cfg) == f"Config (path: {path}): {{'a': 1}}"
    assert (BASE_KEY, DELETE_KEY) == ("_base_", "_delete_")


def test_fromfile_of_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the config file /.*/no.py does not exist"):
        Config.fromfile(tmp_path / "no.py")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Config.fromfile("no.py")


def test_fromfile_keeps_the_name_as_given(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("a = 1")
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile("a.py")
    assert cfg.filename == "a.py" and cfg.text == f"{tmp_path}/a.py\na = 1"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config.fromfile("~/a.py").a == 1


def test_lazy_import_is_no_matter_for_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("a: true")
    assert Config.fromfile(tmp_path / "a.yaml", lazy_import=True).a is True


@pytest.fixture
def custom(tmp_path, monkeypatch):
    (tmp_path / "my_modules.py").write_text("loaded = True\n")
    (tmp_path / "my_broken.py").write_text("import not_a_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda text: (tmp_path / "cfg.py").write_text(text) and tmp_path / "cfg.py"
    sys.modules.pop("my_modules", None)


def test_custom_imports(custom):
    path = custom("custom_imports = dict(imports=['my_modules'])")
    Config.fromfile(path, import_custom_modules=False)
    assert "my_modules" not in sys.modules
    Config.fromfile(path)
    assert sys.modules["my_modules"].loaded


@pytest.mark.parametrize("name", ["not_a_module", "my_broken"])
def test_custom_imports_that_fail(custom, name):
    path = custom(f"custom_imports = dict(imports=['{name}'], allow_failed_imports=False)")
    with pytest.raises(ImportError) as caught:
        Config.fromfile(path)
    assert "Failed to import custom modules from {'imports'" in str(caught.value)
    assert "You should set `PYTHONPATH`" in str(caught.value) and sys.path[0] in str(caught.value)
    assert f"Failed to import {name}: No module named" in str(caught.value.__cause__)
    path = custom(f"custom_imports = dict(imports=['{name}'], allow_failed_imports=True)")
    with pytest.warns(UserWarning, match=f"{name} failed to import and is ignored"):
        Config.fromfile(path)


@pytest.mark.parametrize(
    ("text", "extension"),
    [
        ("a = 1\nb = dict(c=2)", ".py"),
        ("a: 1\nb: {c: 2}", ".yml"),
        ('{"a":1,"b":{"c":2}}', ".json"),
    ],
)
def test_fromstring(text, extension):
    cfg = Config.fromstring(text, extension)
    assert cfg._cfg_dict == {"a": 1, "b": {"c": 2}}
    assert cfg.filename is None and cfg.text == text


def test_fromstring_with_bases_and_variables(tmp_path, monkeypatch):
    (tmp_path / "b.py").write_text("a = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FT_N", "5")
    cfg = Config.fromstring("_base_ = './b.py'\nn = {{$FT_N:1}}\nd = '{{fileDirname}}'", ".py")
    assert cfg._cfg_dict == {"a": 1, "n": 5, "d": "{{fileDirname}}"}
    assert cfg.env_variables == {"FT_N": "5"}


def test_fromstring_of_wrong_text():
    with pytest.raises(SyntaxError, match=r"<string>.py, line 2: invalid syntax"):
        Config.fromstring("a = 1\nb = = 2", ".py")
    for file_format in (".xml", "py"):
        with pytest.raises(OSError, match="Only py/yml/yaml/json type are supported now"):
            Config.fromstring("a = 1", file_format)
    with pytest.raises(ValueError):
        Config.fromstring("a = 1", ".json")


def test_merge_from_dict():
    cfg = Config({"a": {"b": 1}, "l": [{"x": 1}, {"y": 1}], "n": 1})
    cfg.merge_from_dict({"a.b": 2, "a.c.d": 3, "l.1.y": 4, "l.0": {"z": 1}, "e": {"f": 5}})
    assert cfg._cfg_dict == {
        "a": {"b": 2, "c": {"d": 3}}, "l": [{"x": 1, "z": 1}, {"y": 4}], "n": 1, "e": {"f": 5},
    }  # fmt: skip
    assert cfg.a.c.d == 3 and cfg.e.f == 5
    cfg.merge_from_dict({"a": {"_delete_": True, "q": 1}})
    assert cfg.a == {"q": 1}
    with pytest.raises(TypeError, match="of type <class 'list'> in base config"):
        cfg.merge_from_dict({"l.0.x": 2}, allow_list_keys=False)
    with pytest.raises(TypeError, match="of type <class 'int'> in base config"):
        cfg.merge_from_dict({"n.m": 2})
    with pytest.raises(KeyError, match="Index 7 exceeds the length of list"):
        cfg.merge_from_dict({"l.7.x": 2})


@pytest.mark.parametrize("copied", [copy.copy, Config.copy])
def test_shallow_copies(copied):
    cfg = Config(VALUES, cfg_text="t")
    other = copied(cfg)
    assert type(other) is Config and other._cfg_dict is not cfg._cfg_dict and other.b is cfg.b
    other.new = 1
    assert "new" not in cfg and other.text == "t"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg))])
def test_deep_copies(tmp_path, copied):
    (tmp_path / "a.py").write_text("a = dict(b=[1, dict(c=2)])")
    cfg = Config.fromfile(tmp_path / "a.py", format_python_code=False)
    other = copied(cfg)
    assert type(other) is Config and other._cfg_dict == cfg._cfg_dict
    assert other.__getstate__() == cfg.__getstate__()
    other.a.b[1].c = 3
    assert cfg.a.b[1].c == 2 and type(other.a) is ConfigDict


def test_plain_values():
    plain = Config(VALUES).to_dict()
    assert plain == VALUES and type(plain) is type(plain["b"]) is type(plain["b"]["c"][1]) is dict


@pytest.mark.parametrize("extension", ["py", "yaml", "yml", "json"])
def test_dump_loads_back(tmp_path, extension):
    values = {"a": 1, "b": {"c": [1, {"d": "é\n"}]}, "f": None}
    cfg, path = Config(values), tmp_path / f"out.{extension}"
    assert cfg.dump(path) is None
    again = Config.fromfile(path)
    assert again._cfg_dict == values and again.dump() == path.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == [f"out.{extension}"]


def test_dump_to_text_and_to_wrong_names(tmp_path):
    cfg = Config({"b": {"c": 2}, "a": 1})
    assert cfg.dump() == cfg.pretty_text == "a = 1\nb = dict(c=2)\n"
    for name, shown in (("out.txt", "txt"), ("out", "out")):
        with pytest.raises(TypeError, match=rf"Unsupported format: \S*{shown}; use .py, .yaml"):
            cfg.dump(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_dump_into_a_missing_folder_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder of this file does not exist: .*/out\.py"):
        Config({"a": 1}).dump(tmp_path / "missing" / "out.py")


def test_fromstring_of_a_lazy_config(tmp_path, monkeypatch):
    (tmp_path / "b.py").write_text("b = 1\n")
    monkeypatch.chdir(tmp_path)
    text = """from torch.optim import SGD
from fasttrain.config import read_base
with read_base():
    from .b import *
optimizer = dict(type=SGD)
"""
    cfg = Config.fromstring(text, ".py")
    assert cfg.to_dict() == {"b": 1, "optimizer": {"type": "torch.optim.SGD"}}
    assert cfg.optimizer.type is torch.optim.SGD and cfg.text == text


def test_fromstring_imports_custom_modules():
    with pytest.raises(ImportError, match=r"Failed to import custom modules from .*no_such"):
        Config.fromstring('custom_imports = dict(imports=["no_such_module"])', ".py")


def test_text_on_single_lines():
    cfg = Config({"a": {"b": ["x" * 50, "y" * 50]}}, format_python_code=False)
    assert cfg.pretty_text.count("\n") == 1


def test_diff(tmp_path):
    one, two = Config({"a": 1, "b": 2}), Config({"a": 1, "b": 3})
    expected = "--- \n\n+++ \n\n@@ -1,3 +1,3 @@\n\n a = 1\n-b = 2\n+b = 3\n \n\n"
    assert Config.diff(one, two) == expected
    one.dump(tmp_path / "1.py")
    two.dump(tmp_path / "2.yaml")
    assert Config.diff(tmp_path / "1.py", str(tmp_path / "2.yaml")) == expected
    assert Config.diff(one, one) == "\n"


def test_auto_argparser(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.py").write_text("lr = 0.1\nmodel = dict(depth=2)\nflag = False\nids = [1]")
    options = ["--lr", "1", "--model.depth", "3", "--flag", "--ids", "4", "5"]
    monkeypatch.setattr(sys, "argv", ["tool", str(tmp_path / "a.py"), *options])
    parser, cfg = Config.auto_argparser("a tool")
    assert cfg.model.depth == 2 and parser.description == "a tool"
    parsed = vars(parser.parse_args())
    assert parsed == {
        "config": str(tmp_path / "a.py"), "lr": 1.0, "model.depth": 3, "flag": True, "ids": [4, 5],
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["tool", str(tmp_path / "a.py"), "--nope", "1"])
    with pytest.raises(SystemExit):
        Config.auto_argparser()[0].parse_args()
    assert "unrecognized arguments: --nope" in capsys.readouterr().err
