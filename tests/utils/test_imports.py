"""Importing modules and objects by name."""

import sys

import pytest

from fasttrain import utils


def test_import_modules():
    import os.path

    assert utils.import_modules_from_strings(["os.path", "sys"]) == [os.path, sys]
    assert utils.import_modules_from_strings("os.path") is os.path
    assert utils.import_modules_from_strings([]) is None
    with pytest.raises(TypeError, match="custom_imports must be a list but got type <class 'int'>"):
        utils.import_modules_from_strings(3)
    with pytest.raises(TypeError, match=r"3 is of type <class 'int'> and cannot be imported\."):
        utils.import_modules_from_strings(["sys", 3])
    with pytest.raises(ImportError, match="Failed to import not_a_module: No module named"):
        utils.import_modules_from_strings("not_a_module")
    with pytest.warns(UserWarning, match="not_a_module failed to import and is ignored"):
        modules = utils.import_modules_from_strings(["not_a_module"], allow_failed_imports=True)
    assert modules == [None]


def test_get_object_from_string(tmp_path, monkeypatch):
    (tmp_path / "pack_a").mkdir()
    (tmp_path / "pack_a/__init__.py").write_text("")
    (tmp_path / "pack_a/part.py").write_text("class Thing:\n    size = 3\n")
    (tmp_path / "pack_a/broken.py").write_text("import not_a_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert utils.get_object_from_string("pack_a.part.Thing.size") == 3
    for path in ("pack_a.part.Nothing", "pack_a.nothing.Thing", "nothing.x", "pack_a..part", ""):
        assert utils.get_object_from_string(path) is None
    with pytest.raises(ModuleNotFoundError, match="not_a_module"):
        utils.get_object_from_string("pack_a.broken.Thing")
