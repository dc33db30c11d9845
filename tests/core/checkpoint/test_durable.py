"""A final name holds the whole old file or the whole new one, and errors leave nothing behind."""

import os
import subprocess
import sys

import pytest
import torch

from fasttrain.core.checkpoint import (
    load,
    remove_leftovers,
    replace_durably,
    save,
    write_text_durably,
)
from fasttrain.core.checkpoint.durable import temporary_path


def test_an_error_midway_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    save({"step": 1}, path)
    with pytest.raises(KeyboardInterrupt), replace_durably(path) as descriptor:
        os.write(descriptor, b"half")
        raise KeyboardInterrupt
    assert load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["a.pth"]


def test_the_final_name_appears_only_when_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    with replace_durably(path) as descriptor:
        os.write(descriptor, b"whole")
        assert not path.exists()
        assert [p.suffix for p in path.parent.iterdir()] == [".tmp"]
    assert path.read_bytes() == b"whole"
    assert os.listdir(path.parent) == ["a.txt"]


def test_it_syncs_the_file_then_renames_then_syncs_the_folder(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text_durably(tmp_path / "name", "text")
    assert calls[0].startswith(".name.")
    assert calls[1:] == ["rename", tmp_path.name]


def test_a_name_that_is_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="expected a file name, got a folder"):
        save({}, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"could not write .*a\.pth.*: Permission denied"):
        save({}, tmp_path / "a.pth")


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"could not write .*file/a\.pth"):
        save({}, tmp_path / "file" / "a.pth")


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        save({}, tmp_path / "a.pth")
    finally:
        os.umask(old)
    assert os.stat(tmp_path / "a.pth").st_mode & 0o777 == 0o640


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    code = (
        "import sys, pathlib; from fasttrain.core.checkpoint.durable import temporary_path;"
        "print(temporary_path(pathlib.Path(sys.argv[1]) / 'a.pth'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    dead = tmp_path / os.path.basename(found.stdout.strip())
    alive = temporary_path(tmp_path / "b.pth")
    for path in (dead, alive, tmp_path / ".other.tmp"):
        path.write_text("half")
    assert remove_leftovers(tmp_path) == [dead]
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, ".other.tmp"])


def test_the_same_state_saved_twice_replaces(tmp_path):
    for step in range(3):
        save({"step": step, "t": torch.full((1000,), step)}, tmp_path / "a.pth")
    assert load(tmp_path / "a.pth")["step"] == 2
    assert os.listdir(tmp_path) == ["a.pth"]
