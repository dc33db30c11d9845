"""Opening a checkpoint runs nothing: foreign classes are refused by name, arrays are admitted."""

import collections
import io
import os
import pickle

import numpy as np
import pytest
import torch

from fasttrain.core.checkpoint import CheckpointError, PickledObject, UnsafeCheckpointError, load
from support import assert_same


class Evil:
    def __reduce__(self):
        return (os.system, ("echo pwned > pwned",))


class Foreign:
    def __init__(self):
        self.values = np.arange(3.0)
        self.count = np.int32(3)


class PickledForeign(PickledObject):
    __slots__ = ()

    def plain(self):
        return {"values": self.attributes["values"], "count": self.attributes["count"]}


WRITERS = {
    "zip": lambda state, path: torch.save(state, path),
    "legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "pickle2": lambda state, path: path.write_bytes(pickle.dumps(state, protocol=2)),
    "pickle5": lambda state, path: path.write_bytes(pickle.dumps(state, protocol=5)),
}


@pytest.fixture(params=WRITERS)
def writer(request):
    return WRITERS[request.param]


def name_of(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    writer({"model": {"w": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"refused to unpickle 'posix\.system'"):
        load(tmp_path / "evil.pth")
    assert os.listdir(tmp_path) == ["evil.pth"]


def test_a_malicious_file_is_refused_when_mapped(tmp_path):
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"'posix\.system'"):
        load(tmp_path / "evil.pth", mmap=True)


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x011\x85R.",
        b"cbuiltins\ngetattr\n(cbuiltins\nlist\nX\x09\x00\x00\x00__class__tR.",
        b"(X\x02\x00\x00\x00lsios\nsystem\n.",
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, pickled):
    (tmp_path / "a.pkl").write_bytes(pickled)
    with pytest.raises((UnsafeCheckpointError, CheckpointError)):
        load(tmp_path / "a.pkl", classes={name_of(Foreign): PickledForeign})


def test_a_pickle_cannot_alter_the_stand_ins(tmp_path):
    # BUILD on the admitted class itself, with a state that would set attributes on it
    pickled = b"cnumpy\nndarray\n(N}X\x05\x00\x00\x00arrayX\x01\x00\x00\x00xstb."
    (tmp_path / "a.pkl").write_bytes(pickled)
    with pytest.raises(CheckpointError):
        load(tmp_path / "a.pkl")


def test_numpy_values_are_admitted(tmp_path, writer):
    state = {
        "c": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.arange(3, dtype=">i8"),
        "empty": np.zeros((0, 2)),
        "text": np.array(["a", "bc"]),
    }
    writer({**state, "scalar": np.float64(0.5)}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth")
    assert loaded.pop("scalar") == 0.5
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape


def test_arrays_of_objects_are_refused(tmp_path, writer):
    writer({"a": np.array([{}, 1], dtype=object)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="dtype 'O8' are not admitted"):
        load(tmp_path / "a.pth")


def test_an_admitted_class_becomes_its_plain_form(tmp_path, writer):
    shared = Foreign()
    writer({"a": [shared, (shared, 1)]}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", classes={name_of(Foreign): PickledForeign})
    assert_same(loaded["a"][0], {"values": np.arange(3.0), "count": 3})
    assert loaded["a"][1][0] is loaded["a"][0]
    with pytest.raises(UnsafeCheckpointError, match=r"refused to unpickle '.*Foreign'"):
        load(tmp_path / "a.pth")


def test_free_unpickling_must_be_asked_for(tmp_path, writer):
    writer(collections.OrderedDict(a=collections.ChainMap({"x": 1})), tmp_path / "a.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"collections\.ChainMap.*weights_only=False"):
        load(tmp_path / "a.pth")
    assert load(tmp_path / "a.pth", weights_only=False)["a"]["x"] == 1


@pytest.mark.parametrize("kind", ["half", "empty", "text", "noise", "header"])
def test_damaged_files_are_named(tmp_path, kind):
    torch.save({"a": torch.ones(3000)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    content = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"hello world, this is no checkpoint",
        "noise": bytes(range(1, 256)),
        "header": whole[:90] + b"\xff" * 8 + whole[98:],
    }[kind]
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pth' is (damaged|empty)"):
        load(tmp_path / "a.pth")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth' is not a file that exists"):
        load(tmp_path / "none.pth")


def test_an_open_file(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    buffer.seek(0)
    assert_same(load(buffer), {"a": torch.ones(2)})


def test_nothing_stays_admitted_afterwards(tmp_path):
    before = set(map(id, torch.serialization.get_safe_globals()))
    torch.save({"a": Foreign()}, tmp_path / "a.pth")
    load(tmp_path / "a.pth", classes={name_of(Foreign): PickledForeign})
    assert set(map(id, torch.serialization.get_safe_globals())) == before
