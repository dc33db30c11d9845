import copy
import io
import pickle
import threading
from collections import OrderedDict
from types import MappingProxyType

import numpy as np
import pytest
import torch

from fasttrain.logging import HistoryBuffer, MessageHub, MMLogger
from slow_device import SlowReader
from support import check_save_and_resume


@pytest.fixture(autouse=True)
def fresh_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MessageHub, "_instance_dict", OrderedDict())


@pytest.fixture
def hub() -> MessageHub:
    return MessageHub("hub")


def history(hub: MessageHub, key: str) -> list[float]:
    return hub.get_scalar(key).data[0].tolist()


# --- making -------------------------------------------------------------------------------
def test_instances() -> None:
    assert MessageHub.get_current_instance().instance_name == "mmengine"
    one = MessageHub.get_instance("one")
    assert MessageHub.get_instance("one") is one is MessageHub.get_current_instance()


def test_starts_with_what_is_given() -> None:
    scalars, info = {"loss": HistoryBuffer([1.0], [1])}, {"task": "t"}
    hub = MessageHub("hub", scalars, info, {"loss": True, "task": False})
    hub.update_scalar("loss", 2.0)
    hub.update_info("new", 1)
    assert history(hub, "loss") == [1.0, 2.0]
    assert scalars["loss"].data[0].tolist() == [1.0, 2.0], "a given buffer is shown, not copied"
    assert info == {"task": "t"}


@pytest.mark.parametrize("name", ["log_scalars", "runtime_info", "resumed_keys"])
def test_wants_dicts(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} should be a dict or `None`, but got"):
        MessageHub("hub", **{name: [1]})


def test_wants_buffers_and_known_keys() -> None:
    with pytest.raises(AssertionError, match=r"value must be HistoryBuffer, but got <class 'int'>"):
        MessageHub("hub", log_scalars={"a": 1})
    with pytest.raises(AssertionError, match=r"must contained in .* but got b"):
        MessageHub("hub", log_scalars={"a": HistoryBuffer()}, resumed_keys={"b": True})


# --- scalars ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1), (1.5, 1.5), (np.float32(2), 2.0), (np.array(3), 3), (np.array([[4.0]]), 4.0),
        (torch.tensor(5), 5), (torch.tensor([6.0], requires_grad=True), 6.0),
    ],
)  # fmt: skip
def test_update_scalar_takes_numbers(hub: MessageHub, value, number) -> None:
    hub.update_scalar("a", value)
    hub.update_scalar("a", value, 3)
    values, counts = hub.get_scalar("a").data
    assert values.tolist() == [number, number] and counts.tolist() == [1, 3]
    assert type(hub.get_scalar("a").current().item()) is type(number)


@pytest.mark.parametrize("bad", ["1", None, [1], {"value": 1}, np.bool_(True), 1j])
def test_update_scalar_refuses_types(hub: MessageHub, bad) -> None:
    with pytest.raises(AssertionError, match=r"a: a scalar must be"):
        hub.update_scalar("a", bad)


@pytest.mark.parametrize("bad", [np.ones(2), torch.zeros(0), torch.ones(1, 2)])
def test_update_scalar_refuses_shapes(hub: MessageHub, bad) -> None:
    with pytest.raises(AssertionError, match=r"a: a scalar must have exactly one element"):
        hub.update_scalar("a", bad)


def test_counts_are_numbers(hub: MessageHub) -> None:
    hub.update_scalar("a", 1.0, torch.tensor(2))
    hub.update_scalar("a", 1.0, np.array([0.5]))
    assert hub.get_scalar("a").data[1].tolist() == [2.0, 0.5]
    for bad in ("2", None, [1]):
        with pytest.raises(TypeError, match=r"count must be a number, but got"):
            hub.update_scalar("a", 1.0, bad)


def test_update_scalars(hub: MessageHub) -> None:
    mixed = {"a": 1, "b": torch.tensor(2.5), "c": {"value": 3, "count": 2}, "d": {"value": 1.0}}
    for _ in range(3):
        hub.update_scalars(mixed)
    assert list(hub.log_scalars) == ["a", "b", "c", "d"]
    assert history(hub, "b") == [2.5] * 3
    assert hub.get_scalar("c").data[1].tolist() == [2.0] * 3
    assert mixed["c"] == {"value": 3, "count": 2}


def test_update_scalars_refuses(hub: MessageHub) -> None:
    hub.update_scalars({"a": 1.0})
    with pytest.raises(AssertionError, match=r"`log_dict` must be a dict!, but got <class 'list'>"):
        hub.update_scalars([1])  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=r"value must be defined in {'count': 3}"):
        hub.update_scalars({"a": {"count": 3}})
    with pytest.raises(AssertionError, match=r"exactly one element"):
        hub.update_scalars({"a": torch.zeros(2)})
    with pytest.raises(AssertionError, match=r"a scalar must be"):
        hub.update_scalars({"a": []})
    assert history(hub, "a") == [1.0]


def test_update_prefixed(hub: MessageHub) -> None:
    for number in (1.0, 2.0):
        hub.update_prefixed("train/", {"loss": number})
        hub.update_prefixed("val/", {"loss": -number})
    assert history(hub, "train/loss") == [1.0, 2.0]
    assert history(hub, "val/loss") == [-1.0, -2.0]
    with pytest.raises(AssertionError, match=r"train/loss used to be True, but got False now"):
        hub.update_prefixed("train/", {"loss": 1.0}, resumed=False)


def test_get_scalar_gives_the_buffer_itself(hub: MessageHub) -> None:
    hub.update_scalar("a", 1.0)
    buffer = hub.get_scalar("a")
    buffer.update(2.0)
    hub.update_scalars({"a": 3.0})
    assert hub.get_scalar("a") is buffer
    assert buffer.data[0].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(KeyError, match=r"b is not found in Messagehub.* instance name is: hub"):
        hub.get_scalar("b")


def test_buffers_may_be_replaced_from_outside(hub: MessageHub) -> None:
    hub.update_scalars({"a": 1.0, "b": 1.0})
    hub._log_scalars["a"] = own = HistoryBuffer([5.0], [1])
    hub.update_scalars({"a": 6.0, "b": 2.0})
    assert own.data[0].tolist() == [5.0, 6.0]
    del hub.log_scalars["a"]
    hub.log_scalars.pop("b")
    assert not hub.log_scalars
    hub.update_scalars({"a": 7.0, "b": 8.0})
    assert (history(hub, "a"), history(hub, "b")) == ([7.0], [8.0])
    hub.log_scalars.popitem()
    hub.log_scalars.setdefault("c", HistoryBuffer([1.0], [1]))
    hub.update_scalar("c", 2.0)
    assert history(hub, "c") == [1.0, 2.0] and list(hub.log_scalars) == ["a", "c"]
    hub._log_scalars = {"d": own}  # type: ignore[assignment]
    hub.update_scalars({"d": 9.0, "a": 0.0})
    assert own.data[0].tolist() == [5.0, 6.0, 9.0] and history(hub, "a") == [0.0]
    hub.log_scalars.clear()
    assert len(hub.log_scalars) == 0


def test_copies_of_all_scalars_are_plain(hub: MessageHub) -> None:
    hub.update_scalar("a", 1.0)
    for clone in (copy.deepcopy(hub.log_scalars), pickle.loads(pickle.dumps(hub.log_scalars))):
        assert type(clone) is OrderedDict
        clone["a"].update(2.0)
    assert copy.copy(hub.log_scalars)["a"] is hub.get_scalar("a")
    assert history(hub, "a") == [1.0]


# --- notes --------------------------------------------------------------------------------
def test_notes(hub: MessageHub) -> None:
    note = [1]
    hub.update_info("a", 0)
    hub.update_info("a", note)
    hub.update_info_dict({"b": 2, "c": 3}, resumed=False)
    assert hub.get_info("a") is note
    assert hub.runtime_info == {"a": note, "b": 2, "c": 3}
    assert (hub.get_info("x"), hub.get_info("x", 5)) == (None, 5)
    assert (hub.pop_info("b"), hub.pop_info("b"), hub.pop_info("b", 7)) == (2, None, 7)
    with pytest.raises(AssertionError, match=r"`info_dict` must be a dict!"):
        hub.update_info_dict([1])  # type: ignore[arg-type]


def test_resumed_flags_stay(hub: MessageHub) -> None:
    hub.update_scalar("a", 1.0)
    hub.update_scalars({"b": 1.0}, resumed=False)
    hub.update_info("c", 1)
    assert hub._resumed_keys == {"a": True, "b": False, "c": True}
    changes = [
        lambda: hub.update_scalar("a", 1.0, resumed=False),
        lambda: hub.update_scalars({"new": 1.0, "a": 1.0}, resumed=False),
        lambda: hub.update_info("a", 1, resumed=False),
        lambda: hub.update_info_dict({"a": 1}, resumed=False),
    ]
    for change in changes:
        with pytest.raises(AssertionError, match=r"a used to be True, but got False now. resumed"):
            change()
    assert history(hub, "a") == [1.0] and "new" not in hub.log_scalars
    with pytest.raises(AssertionError, match=r"b used to be False, but got True now"):
        hub.update_scalars({"b": 2.0})


# --- saving -------------------------------------------------------------------------------
def test_saves_and_resumes() -> None:
    def advance(hub: MessageHub, step: int) -> list:
        hub.update_scalars({"loss": step * 0.5, "acc": {"value": step, "count": 2}})
        hub.update_info("iter", step)
        return [hub.get_scalar("loss").mean(4), hub.get_scalar("acc").current(), hub.runtime_info]

    check_save_and_resume(
        lambda: MessageHub("hub"),
        advance,
        state=lambda hub: {
            "scalars": {k: b.state_dict() for k, b in hub.state_dict()["log_scalars"].items()},
            "log_scalars": {k: b.state_dict() for k, b in hub.state_dict()["log_scalars"].items()},
            "runtime_info": hub.state_dict()["runtime_info"],
            "resumed_keys": hub.state_dict()["resumed_keys"],
        },
    )


def test_a_state_holds_what_is_resumed(hub: MessageHub) -> None:
    hub.update_scalars({"a": 1.0})
    hub.update_scalars({"b": 1.0}, resumed=False)
    hub.update_info("c", [1])
    hub.update_info("d", 2, resumed=False)
    state = hub.state_dict()
    assert list(state) == ["log_scalars", "runtime_info", "resumed_keys"]
    assert list(state["log_scalars"]) == ["a"] and dict(state["runtime_info"]) == {"c": [1]}
    assert state["resumed_keys"] == {"a": True, "b": False, "c": True, "d": False}
    state["log_scalars"]["a"].update(9.0)
    state["runtime_info"]["c"].append(2)
    assert history(hub, "a") == [1.0] and hub.get_info("c") == [1]


def test_a_state_does_not_grow_with_the_run(hub: MessageHub) -> None:
    sizes = []
    for _ in range(3):
        for _ in range(3000):
            hub.update_scalars({"loss": 1.0})
        file = io.BytesIO()
        torch.save(hub.state_dict()["log_scalars"]["loss"].state_dict(), file)
        sizes.append(len(file.getvalue()))
    assert sizes[0] == sizes[1] == sizes[2] < 50_000
    hub.state_limit = None
    assert len(hub.state_dict()["log_scalars"]["loss"].data[0]) == 9000
    assert MessageHub("another").state_limit == 2000


def test_loads_plain_tensors(hub: MessageHub) -> None:
    source = MessageHub("source")
    source.update_scalars({"loss": 1.5, "step": 3})
    state = source.state_dict()
    state["log_scalars"] = {key: b.state_dict() for key, b in state["log_scalars"].items()}
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    hub.load_state_dict(torch.load(file, weights_only=True))
    hub.update_scalars({"loss": 2.5, "step": 4})
    assert (history(hub, "loss"), history(hub, "step")) == ([1.5, 2.5], [3, 4])
    assert hub.get_scalar("step").current().dtype == np.int64


def test_loads_copies(hub: MessageHub) -> None:
    source = MessageHub("source", {"a": HistoryBuffer([1.0], [1])}, {"c": [1]}, {"a": True})
    hub.update_scalars({"a": 7.0, "old": 1.0})
    for given in (source.state_dict(), source):
        hub.load_state_dict(given)
        hub.update_scalars({"a": 2.0})
        assert history(hub, "a") == [1.0, 2.0] and history(source, "a") == [1.0]
    assert list(hub.log_scalars) == ["a", "old"]
    assert hub.get_info("c") == [1] and hub.get_info("c") is not source.get_info("c")


def test_loads_buffers_of_other_classes(hub: MessageHub) -> None:
    class Foreign:
        _log_history = np.array([1.0, 2.0])
        _count_history = np.array([1, 3])

    hub.load_state_dict({"log_scalars": {"a": Foreign()}, "runtime_info": {}, "resumed_keys": {}})
    assert [column.tolist() for column in hub.get_scalar("a").data] == [[1.0, 2.0], [1, 3]]


@pytest.mark.parametrize("missing", ["log_scalars", "runtime_info", "resumed_keys"])
def test_a_missing_part_is_named(hub: MessageHub, missing: str) -> None:
    state = {part: {} for part in ("log_scalars", "runtime_info", "resumed_keys")}
    del state[missing]
    with pytest.raises(AssertionError, match=f"must contain key: `{missing}`"):
        hub.load_state_dict(state)


def test_what_cannot_be_resumed_is_named(
    hub: MessageHub, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MMLogger, "_instance_dict", OrderedDict())
    hub.load_state_dict(
        {
            "log_scalars": {"a": 1},
            "runtime_info": {},
            "resumed_keys": {"gone": True, "never": False},
        }
    )
    out = capsys.readouterr().out
    assert "a in message_hub is not HistoryBuffer, just skip resuming it." in out
    assert "resumed key: gone is not defined in message_hub" in out
    assert "never" not in out
    lock = threading.Lock()
    hub.update_info("lock", lock)
    assert hub.state_dict()["runtime_info"]["lock"] is lock
    assert "lock in message_hub cannot be copied" in capsys.readouterr().out


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))])
def test_copies(hub: MessageHub, clone) -> None:
    hub.update_scalars({"a": 1.0})
    hub.update_info("c", 1, resumed=False)
    other = clone(hub)
    other.update_scalars({"a": 2.0})
    assert (history(other, "a"), history(hub, "a")) == ([1.0, 2.0], [1.0])
    assert other._resumed_keys == {"a": True, "c": False} and other.instance_name == "hub"


# --- a slow device ------------------------------------------------------------------------
def test_a_device_is_read_when_someone_asks() -> None:
    reader = SlowReader()
    hub = MessageHub("hub", reader=reader)
    for step in range(5):
        hub.update_scalars({"loss": torch.tensor(step + 0.5), "lr": 0.1})
        hub.update_scalar("norm", torch.tensor([float(step)]), 2)
    assert hub.pending and not reader.transfers
    assert history(hub, "loss") == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert hub.get_scalar("norm").data[1].tolist() == [2.0] * 5
    assert len(reader.transfers) == 1 and not hub.pending
    hub.update_scalar("loss", torch.tensor(9.0))
    assert hub.state_dict()["log_scalars"]["loss"].current() == 9.0


def test_direct_updates_queue_behind_a_device() -> None:
    hub = MessageHub("hub", reader=SlowReader())
    hub.update_scalar("loss", torch.tensor(1.0))
    hub.get_scalar("loss").update(2.0)
    hub.update_scalar("loss", 3.0)
    assert history(hub, "loss") == [1.0, 2.0, 3.0]
    with pytest.raises(TypeError, match=r"log_val must be int or float"):
        hub.get_scalar("loss").update(torch.tensor(1.0))
    hub.update_scalar("loss", torch.tensor(4.0))
    with pytest.raises(TypeError, match=r"log_val must be int or float"):
        hub.get_scalar("loss").update(torch.tensor(1.0))
    assert history(hub, "loss") == [1.0, 2.0, 3.0, 4.0]


def test_threads(hub: MessageHub) -> None:
    def work(number: int) -> None:
        for step in range(300):
            hub.update_scalars({"shared": 1.0, f"own{number}": float(step)})
            hub.update_info("iter", step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history(hub, "shared")) == 1200
    assert all(history(hub, f"own{number}") == list(range(300)) for number in range(4))


def test_a_refused_scalar_leaves_nothing_to_read() -> None:
    hub = MessageHub("refused")
    with pytest.raises(AssertionError):
        hub.update_scalar("a", "x")
    assert "a" not in hub.log_scalars


def test_names_need_not_be_text() -> None:
    hub = MessageHub("numbers as names")
    for _ in range(2):
        hub.update_scalars({1: 2.0})
        hub.update_prefixed("train/", {1: 3.0})
    assert hub.get_scalar(1).data[0].tolist() == [2.0, 2.0]
    assert hub.get_scalar("train/1").data[0].tolist() == [3.0, 3.0]


def test_flags_that_were_taken_away_are_set_again() -> None:
    hub = MessageHub("flags")
    for _ in range(2):
        hub.update_scalars({"a": 1.0})
    hub._resumed_keys.clear()
    hub.update_scalars({"a": 2.0})
    assert dict(hub._resumed_keys) == {"a": True}
    hub.update_info("b", 1)
    hub.update_scalars({"a": 2.0})
    assert hub._checked[""] == {"a"}


def test_integers_beyond_float64_are_numbers() -> None:
    buffer = HistoryBuffer([1, 2], [1, 1])
    buffer.update(2**70)
    assert buffer.current() == 2.0**70 and buffer.data[0].tolist() == [1.0, 2.0, 2.0**70]


def test_any_mapping_may_be_put_under_a_prefix() -> None:
    hub = MessageHub("mapping")
    hub.update_prefixed("train/", MappingProxyType({"a": 1.0}))
    assert hub.get_scalar("train/a").current() == 1.0
    with pytest.raises(AssertionError, match="`log_dict` must be a dict"):
        hub.update_scalars(MappingProxyType({"a": 1.0}))
