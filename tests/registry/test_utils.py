"""Looking over the registries, and setting the default scope."""

import json
import logging

import pytest

from fasttrain.registry import (
    DefaultScope,
    Registry,
    count_registered_modules,
    init_default_scope,
    root,
    traverse_registry_tree,
)


def test_traverse_counts_a_whole_tree(caplog):
    dogs = Registry("dogs", scope="a")
    small = Registry("small", scope="b", parent=dogs)
    thing = type("Thing", (), {"__module__": "pack.models.thing"})
    dogs.register_module(name=["x", "y"], module=thing)
    with caplog.at_level(logging.INFO, "fasttrain.registry"):
        found = traverse_registry_tree(small)
    assert found == [
        {"num_modules": 2, "scope": "a", "pack/models": ["x", "y"]},
        {"num_modules": 0, "scope": "b"},
    ]
    assert "Find 2 modules in a's 'dogs' registry" in caplog.text
    caplog.clear()
    assert traverse_registry_tree(dogs, verbose=False) == found
    assert caplog.text == ""


def test_count_registered_modules(tmp_path, monkeypatch):
    for name in [name for name, value in vars(root).items() if isinstance(value, Registry)]:
        monkeypatch.delattr(root, name)
    dogs = Registry("dogs", scope="a")
    dogs.register_module(name="x", module=dict)
    monkeypatch.setattr(root, "DOGS", dogs, raising=False)
    result = count_registered_modules(str(tmp_path), verbose=False)
    assert result["registries"] == {"DOGS": [{"num_modules": 1, "scope": "a", "": ["x"]}]}
    assert json.loads((tmp_path / "modules_statistic_results.json").read_text()) == result


@pytest.fixture
def no_default_scope(monkeypatch):
    monkeypatch.setattr(DefaultScope, "_instance_dict", type(DefaultScope._instance_dict)())


def test_init_default_scope(no_default_scope, caplog):
    for scope in ("one", "two", "two"):
        init_default_scope(scope)
        assert DefaultScope.get_current_instance().scope_name == scope
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING, "fasttrain.registry"):
        init_default_scope("one")
    assert DefaultScope.get_current_instance().scope_name == "one"
    assert 'current default scope "two" is not "one", `init_default_scope` will' in caplog.text
