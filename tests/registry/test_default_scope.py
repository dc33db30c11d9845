"""The scope in force."""

import pytest

from fasttrain.registry import DefaultScope


@pytest.fixture(autouse=True)
def no_default_scope(monkeypatch):
    monkeypatch.setattr(DefaultScope, "_instance_dict", type(DefaultScope._instance_dict)())


def test_none_until_set():
    assert DefaultScope.get_current_instance() is None
    DefaultScope.get_instance("one", scope_name="mmdet")
    assert DefaultScope.get_current_instance().scope_name == "mmdet"


def test_the_name_of_a_scope_is_a_string():
    with pytest.raises(AssertionError, match="scope_name should be a string, but got 3"):
        DefaultScope("one", 3)
    with pytest.raises(TypeError, match="scope_name"):
        DefaultScope.get_instance("one")


def test_overwriting_ends_with_the_context():
    DefaultScope.get_instance("one", scope_name="mmdet")
    with DefaultScope.overwrite_default_scope("mmseg"):
        assert DefaultScope.get_current_instance().scope_name == "mmseg"
        with DefaultScope.overwrite_default_scope(None):
            assert DefaultScope.get_current_instance().scope_name == "mmseg"
        DefaultScope.get_instance("two", scope_name="mmocr")
        assert DefaultScope.get_current_instance().scope_name == "mmocr"
    assert DefaultScope.get_current_instance().scope_name == "mmdet"
    assert not DefaultScope.check_instance_created("two")


def test_overwriting_ends_after_an_error():
    with pytest.raises(ZeroDivisionError), DefaultScope.overwrite_default_scope("mmseg"):
        _ = 1 / 0
    assert DefaultScope.get_current_instance() is None
