"""Checks and conversions of types, deprecations, imports by name."""

import collections
import logging
import sys

import pytest

from fasttrain import utils


def test_kinds_of_sequences():
    assert utils.is_str("a") and not utils.is_str(1)
    assert utils.is_seq_of(["a", "b"], str) and utils.is_seq_of(("a", 1), (str, int))
    assert utils.is_seq_of([], str)
    assert not utils.is_seq_of(["a"], str, seq_type=tuple) and not utils.is_seq_of(1, int)
    assert utils.is_list_of([1], int) and not utils.is_list_of((1,), int)
    assert utils.is_tuple_of((1,), int) and not utils.is_tuple_of([1], int)


def test_casts():
    assert utils.list_cast(["1", "2"], int) == [1, 2]
    assert utils.tuple_cast([1, 2], str) == ("1", "2")
    assert next(utils.iter_cast([1], float)) == 1.0
    with pytest.raises(TypeError, match="inputs must be an iterable object"):
        utils.iter_cast(1, str)
    with pytest.raises(TypeError, match='"dst_type" must be a valid type'):
        utils.iter_cast([1], "str")


def test_cutting_and_joining_lists():
    assert utils.slice_list([1, 2, 3, 4], 2) == [[1, 2], [3, 4]]
    assert utils.slice_list([1, 2, 3], [1, 0, 2]) == [[1], [], [2, 3]]
    assert utils.concat_list([[1, 2], [], [3]]) == [1, 2, 3]
    with pytest.raises(AssertionError, match="a list of 3 cannot be cut into parts of 2"):
        utils.slice_list([1, 2, 3], 2)
    with pytest.raises(ValueError, match="sum of lens and list length does not match: 2 != 3"):
        utils.slice_list([1, 2, 3], [1, 1])
    with pytest.raises(TypeError, match="must be an integer or a list of integers"):
        utils.slice_list([1], "1")


def test_ntuples():
    assert utils.to_1tuple(5) == (5,) and utils.to_4tuple(None) == (None,) * 4
    assert utils.to_2tuple((1, 2, 3)) == (1, 2, 3) and utils.to_2tuple("ab") == "ab"
    assert utils.to_3tuple(0) == utils.to_ntuple(3)(0) == (0, 0, 0)


def test_apply_to_keeps_containers():
    pair = collections.namedtuple("pair", "x y")
    data = {"a": [1, "s"], "b": (2, pair(3, "t"))}
    doubled = utils.apply_to(data, lambda x: isinstance(x, int), lambda x: x * 2)
    assert doubled == {"a": [2, "s"], "b": (4, pair(6, "t"))}
    assert type(doubled["b"][1]) is pair


def test_methods():
    class Base:
        attribute = 1

        def run(self):
            pass

    class Same(Base):
        pass

    class Other(Base):
        def run(self):
            pass

    assert utils.has_method(Base(), "run") and not utils.has_method(Base(), "attribute")
    assert utils.is_method_overridden("run", Base, Other)
    assert utils.is_method_overridden("run", Base, Other())
    assert not utils.is_method_overridden("run", Base, Same)
    with pytest.raises(AssertionError, match="base_class doesn't accept instance"):
        utils.is_method_overridden("run", Base(), Other)


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


def test_deprecated_api_warning():
    @utils.deprecated_api_warning({"old": "new"}, cls_name="Thing")
    def run(new=1):
        return new

    assert run(new=2) == 2 and run() == 1
    with pytest.warns(DeprecationWarning, match='"old" is deprecated in `Thing.run`, please use'):
        assert run(old=3) == 3
    with pytest.raises(AssertionError, match="got them in the arguments at the same time"):
        run(old=3, new=4)


def test_deprecated_function(caplog):
    @utils.deprecated_function("0.1", "0.3", "use other")
    def run(x):
        """Run."""
        return x

    with caplog.at_level(logging.WARNING, "fasttrain.utils"):
        assert run(1) == 1 and run(2) == 2
    assert len(caplog.records) == 1
    assert "run' is deprecated in version 0.1 and will be removed in version 0.3" in caplog.text
    assert ".. deprecated:: 0.1" in run.__doc__ and run.__doc__.endswith("Run.")


def test_requirements():
    @utils.requires_package(["sys", "not_a_module"])
    def packages():
        return True

    @utils.requires_executable("not-a-program")
    def programs():
        return True

    with pytest.raises(RuntimeError, match='Prerequisites "not_a_module" are required in method'):
        packages()
    with pytest.raises(RuntimeError, match='"not-a-program" are required in method "programs"'):
        programs()
    assert utils.requires_package("sys")(lambda: 1)() == 1


def test_call_command():
    utils.call_command([sys.executable, "-c", "pass"])
    with pytest.raises(Exception, match="returned non-zero exit status 3"):
        utils.call_command([sys.executable, "-c", "raise SystemExit(3)"])
