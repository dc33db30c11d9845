"""Single steps of loading, on files."""

import pytest

from fasttrain.config import Config
from fasttrain.config.lazy import LazyObject
from fasttrain.config.utils import ConfigParsingError


@pytest.fixture
def files(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def read(path):
    with open(path) as file:
        return file.read()


def test_substitutions(files, tmp_path, monkeypatch):
    monkeypatch.setenv("FT_N", "7")
    source, target = files("a.py", "{{fileBasename}} {{$FT_N:1}} {{_base_.x.y}}"), f"{tmp_path}/b"
    Config._substitute_predefined_vars(source, target)
    assert read(target) == "a.py {{$FT_N:1}} {{_base_.x.y}}"
    assert Config._substitute_env_variables(source, target) == {"FT_N": "7"}
    assert read(target) == "{{fileBasename}} 7 {{_base_.x.y}}"
    tokens = Config._pre_substitute_base_vars(source, target)
    ((token, key),) = tokens.items()
    assert key == "x.y" and read(target).endswith(f'"{token}"')
    assert Config._substitute_base_vars({"a": token}, tokens, {"x": {"y": 5}}) == {"a": 5}


def test_validate_py_syntax(files):
    Config._validate_py_syntax(files("good.py", "a = 1"))
    with pytest.raises(SyntaxError, match=r"There are syntax errors in config file .*bad.py, line"):
        Config._validate_py_syntax(files("bad.py", "a ="))


def test_file2dict(files):
    files("b.py", "a = 1\n")
    path = files("a.py", "_base_ = 'b.py'\nc = 2\n")
    cfg, text, env_variables = Config._file2dict(path)
    assert cfg == {"a": 1, "c": 2} and type(cfg) is dict and "c = 2" in text and env_variables == {}
    with pytest.raises(ConfigParsingError, match=r"lazy.py is a lazy config; load it by"):
        Config._file2dict(files("lazy.py", "import torch"))


def test_lazy_files(files):
    assert Config._is_lazy_import(files("a.py", "import torch"))
    assert not Config._is_lazy_import(files("a.yaml", "import torch"))
    cfg, imported = Config._parse_lazy_import(files("b.py", "import torch, os\na = dict(b=1)"))
    assert cfg.a.b == 1 and set(cfg) == {"torch", "a"} and imported == {"torch"}


def test_bases(files):
    assert Config._get_base_files(files("a.py", "_base_ = 'b.py'\nx = {{_base_.y}}")) == ["b.py"]
    assert Config._get_base_files(files("a.yaml", "_base_: [b, c]\nx: {{_base_.y}}")) == ["b", "c"]
    assert Config._get_base_files(files("a.json", '{"x": 1}')) == []
    assert Config._get_base_files(files("empty.yml", "")) == []
    with pytest.raises(ConfigParsingError, match=r"json, yaml or yml, but got .txt"):
        Config._get_base_files(files("a.txt", ""))


def test_merging_scopes_and_paths():
    assert Config._merge_a_into_b({"a": {"b": 1}}, {"a": {"c": 2}}) == {"a": {"c": 2, "b": 1}}
    assert Config._get_cfg_path("./b.py", "/x/a.py") == ("/x/./b.py", None)
    lazy = Config._dict_to_config_dict_lazy({"a": {"b": LazyObject("math")}})
    assert lazy.lazy and lazy.a.b == LazyObject("math")
    typed = {"a": {"type": "A"}}
    assert Config._dict_to_config_dict(typed, "s") == {"a": {"type": "A", "_scope_": "s"}}
    assert Config._dict_to_config_dict(typed, "s", has_scope=False) == typed
