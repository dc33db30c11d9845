"""The hook list: order, cached call lists, and what is left out of them."""

import pytest

from fasttrain.core.hooks import HookList


class Recorder:
    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self) -> str:
        return self.name

    def idle(self) -> None:
        return None


def names(hooks: HookList) -> list[str]:
    return [hook.name for hook in hooks]


def make(*entries: tuple[str, int]) -> HookList:
    hooks: HookList = HookList(lambda hook, stage: stage == "idle")
    for name, priority in entries:
        hooks.add(Recorder(name), priority)
    return hooks


def test_order_is_stable_within_a_priority() -> None:
    hooks = make(("a", 50), ("b", 10), ("c", 50), ("d", 90), ("e", 10), ("f", 50))
    assert names(hooks) == ["b", "e", "a", "c", "f", "d"]
    assert [call() for call in hooks.stage("begin")] == ["b", "e", "a", "c", "f", "d"]


def test_noop_and_missing_methods_are_left_out() -> None:
    hooks = make(("a", 1))
    assert hooks.stage("idle") == ()
    assert hooks.stage("unknown") == ()


def test_call_lists_are_kept_until_the_list_changes() -> None:
    hooks = make(("a", 1))
    first = hooks.stage("begin")
    assert hooks.stage("begin") is first
    hooks.add(Recorder("b"), 0)
    assert [call() for call in hooks.stage("begin")] == ["b", "a"]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda hooks: hooks.pop(), ["a"]),
        (lambda hooks: hooks.remove(hooks[0]), ["b"]),
        (lambda hooks: hooks.insert(0, Recorder("c")), ["c", "a", "b"]),
        (lambda hooks: hooks.append(Recorder("c")), ["a", "b", "c"]),
        (lambda hooks: hooks.__setitem__(1, Recorder("c")), ["a", "c"]),
        (lambda hooks: hooks.clear(), []),
        (lambda hooks: hooks.replace([Recorder("x")], lambda hook: 3), ["x"]),
    ],
)
def test_every_change_drops_the_call_lists(change, left: list[str]) -> None:
    hooks = make(("a", 1), ("b", 2))
    hooks.stage("begin")
    change(hooks)
    assert names(hooks) == left
    assert [call() for call in hooks.stage("begin")] == left


def test_an_inserted_hook_takes_the_priority_of_its_place() -> None:
    hooks = make(("a", 10), ("b", 50))
    hooks.insert(1, Recorder("c"))
    hooks.add(Recorder("d"), 20)
    assert names(hooks) == ["a", "d", "c", "b"]


def test_methods_put_on_later_need_invalidate() -> None:
    hooks = make(("a", 1))
    assert hooks.stage("late") == ()
    hooks[0].late = lambda: "late"
    assert hooks.stage("late") == ()
    hooks.invalidate()
    assert [call() for call in hooks.stage("late")] == ["late"]


def test_slices_read_but_do_not_write() -> None:
    hooks = make(("a", 1), ("b", 2))
    assert [hook.name for hook in hooks[1:]] == ["b"]
    with pytest.raises(TypeError, match="takes no slice assignment"):
        hooks[:] = []


def test_compares_with_lists_and_other_hook_lists() -> None:
    hooks = make(("a", 1))
    assert hooks == [hooks[0]]
    assert hooks != []
    other = make()
    other.add(hooks[0], 7)
    assert hooks == other
    assert "Recorder" in repr(hooks)
