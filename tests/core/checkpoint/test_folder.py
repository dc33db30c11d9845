"""The pointer file, retention, and the newest intact checkpoint."""

import logging
import os
import shutil

import pytest

from fasttrain.core.checkpoint import (
    Retention,
    checkpoint_files,
    newest_intact,
    read_pointer,
    save,
    write_pointer,
)


def test_the_pointer(tmp_path):
    assert read_pointer(tmp_path) is None
    write_pointer(tmp_path, "first")
    write_pointer(tmp_path, tmp_path / "second.pth")
    assert read_pointer(tmp_path) == str(tmp_path / "second.pth")
    assert os.listdir(tmp_path) == ["last_checkpoint"]
    (tmp_path / "last_checkpoint").write_text("\n")
    assert read_pointer(tmp_path) is None


def test_the_pointer_of_a_folder_that_was_moved(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    save({}, old / "a.pth")
    write_pointer(old, old / "a.pth")
    shutil.move(old, new)
    assert read_pointer(new) == str(new / "a.pth")


def test_retention_names_the_oldest():
    retention = Retention(2)
    assert [retention.add(name) for name in "abcb"] == [[], [], ["a"], []]
    assert retention.kept == ["c", "b"]
    assert Retention(1, "xyz").add("w") == ["x", "y", "z"]
    assert Retention(0, "xyz").add("w") == []


@pytest.fixture
def folder(tmp_path):
    for age, name in enumerate(["newest", "middle", "oldest"]):
        save({"name": name}, tmp_path / f"{name}.pth")
        os.utime(tmp_path / f"{name}.pth", (1000 - age, 1000 - age))
    return tmp_path


def test_files_come_newest_first(folder):
    assert [path.stem for path in checkpoint_files(folder)] == ["newest", "middle", "oldest"]


def test_the_newest_intact_one_is_chosen_and_damage_is_named(folder, caplog):
    damaged = {"newest", "middle"}
    with caplog.at_level(logging.WARNING, "fasttrain.checkpoint"):
        found = newest_intact(folder, lambda p: "cut short" if p.stem in damaged else None)
    assert found == folder / "oldest.pth"
    assert "newest.pth is damaged and passed over: cut short" in caplog.text
    assert "middle.pth is damaged and passed over: cut short" in caplog.text


def test_the_pointer_comes_first(folder, caplog):
    oldest, gone = str(folder / "oldest.pth"), str(folder / "gone.pth")
    assert newest_intact(folder, lambda p: None, pointed=oldest) == folder / "oldest.pth"
    assert newest_intact(folder, lambda p: None, pointed=gone) == folder / "newest.pth"
    assert "gone.pth, which the pointer file names, does not exist" in caplog.text


def test_only_accepted_names_are_looked_at(folder):
    found = newest_intact(folder, lambda p: None, accepts=lambda name: name == "middle.pth")
    assert found == folder / "middle.pth"


def test_no_checkpoint_at_all(tmp_path):
    assert newest_intact(tmp_path, lambda p: None) is None
