"""Instances kept by name."""

import threading

import pytest

from fasttrain.utils import ManagerMixin


def make_class():
    class Box(ManagerMixin):
        def __init__(self, name="", size=1):
            super().__init__(name)
            self.size = size

    return Box


def test_get_instance_builds_once():
    box = make_class()
    first = box.get_instance("a", size=3)
    assert first.size == 3 and first.instance_name == "a"
    assert box.get_instance("a") is first
    with pytest.warns(UserWarning, match=r"instance named of a has been created.*\['size'\]"):
        assert box.get_instance("a", size=4) is first
    assert first.size == 3


def test_the_last_created_is_current():
    box = make_class()
    with pytest.raises(RuntimeError, match=r"Before calling Box.get_current_instance\(\)"):
        box.get_current_instance()
    box.get_instance("a")
    last = box.get_instance("b")
    box.get_instance("a")
    assert box.get_current_instance() is last
    assert box.check_instance_created("a") and not box.check_instance_created("c")


def test_subclasses_keep_their_own_instances():
    box = make_class()
    crate = type("Crate", (box,), {})
    assert crate.get_instance("a") is not box.get_instance("a")
    assert crate._instance_dict is not box._instance_dict


def test_wrong_names():
    box = make_class()
    with pytest.raises(AssertionError, match="type of name should be str, but got <class 'int'>"):
        box.get_instance(3)
    for name in ("", 3):
        with pytest.raises(AssertionError, match="name argument must be an non-empty string"):
            box(name)
    with pytest.raises(AttributeError):
        box("a").instance_name = "b"


def test_a_constructor_without_name_is_refused():
    with pytest.raises(AssertionError, match="must have the `name` argument"):

        class Box(ManagerMixin):
            def __init__(self):
                pass


def test_an_error_in_a_constructor_leaves_no_lock_and_no_instance():
    class Box(ManagerMixin):
        def __init__(self, name, size):
            super().__init__(name)
            self.size = 1 / size

    with pytest.raises(ZeroDivisionError):
        Box.get_instance("a", size=0)
    made = []
    thread = threading.Thread(target=lambda: made.append(Box.get_instance("a", size=2)))
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive() and made[0].size == 0.5


def test_threads_share_one_instance():
    box = make_class()
    gate = threading.Barrier(8)
    found = []

    def work():
        gate.wait()
        found.append(box.get_instance("shared"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(map(id, found))) == 1


def test_a_constructor_may_ask_for_another_instance():
    inner = make_class()

    class Outer(ManagerMixin):
        def __init__(self, name):
            super().__init__(name)
            self.inner = inner.get_instance(name)

    assert Outer.get_instance("a").inner is inner.get_current_instance()
