"""Paths and files."""

import os
from pathlib import Path

import pytest

from fasttrain import utils
from fasttrain.utils.path import find_vcs_root, write_text


def test_kinds_of_paths():
    assert utils.is_filepath("a") and utils.is_filepath(Path("a")) and not utils.is_filepath(3)
    assert utils.is_abs("/a") and utils.is_abs("s3://bucket/a") and not utils.is_abs("a")


def test_fopen(tmp_path):
    with utils.fopen(tmp_path / "a", "w") as file:
        file.write("x")
    with pytest.raises(ValueError, match="`filepath` should be a string or a Path"):
        utils.fopen(3)


def test_check_file_exist(tmp_path):
    (tmp_path / "a").write_text("")
    utils.check_file_exist(str(tmp_path / "a"))
    with pytest.raises(FileNotFoundError, match='file "nothing" does not exist'):
        utils.check_file_exist("nothing")


def test_mkdir_or_exist(tmp_path):
    for _ in range(2):
        utils.mkdir_or_exist(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()
    utils.mkdir_or_exist("")


def test_symlink(tmp_path):
    first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "link"
    utils.symlink(str(first), str(link))
    utils.symlink(str(second), str(link))
    assert os.readlink(link) == str(second)
    with pytest.raises(FileExistsError):
        utils.symlink(str(first), str(link), overwrite=False)


def test_scandir(tmp_path):
    for name in ("1.py", "2.TXT", ".hidden", "a/3.py", "a/.h/4.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")

    def scan(*args, **kwargs):
        return sorted(utils.scandir(tmp_path, *args, **kwargs))

    assert scan() == ["1.py", "2.TXT"]
    assert scan(".txt") == [] and scan(".txt", case_sensitive=False) == ["2.TXT"]
    assert scan((".py", ".TXT")) == ["1.py", "2.TXT"]
    assert scan(".py", recursive=True) == ["1.py", "a/.h/4.py", "a/3.py"]
    with pytest.raises(TypeError, match='"dir_path" must be a string or Path object'):
        utils.scandir(3)
    with pytest.raises(TypeError, match='"suffix" must be a string or tuple of strings'):
        utils.scandir(tmp_path, 3)


def test_write_text_replaces_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "one\n")
    assert path.read_text() == "one\n" and path.stat().st_mode & 0o444

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "two\n")
    assert path.read_text() == "one\n" and os.listdir(tmp_path) == ["a.txt"]


def test_write_text_to_a_remote_path():
    import fsspec

    write_text("memory://folder/a.txt", "remote")
    assert fsspec.filesystem("memory").cat("/folder/a.txt") == b"remote"


def test_find_vcs_root(tmp_path):
    folder = tmp_path / "repo" / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "repo" / ".mark").mkdir()
    (folder / "file").write_text("")
    for path in (folder, folder / "file", tmp_path / "repo"):
        assert find_vcs_root(str(path), (".no", ".mark")) == str(tmp_path / "repo")
    assert find_vcs_root(str(folder), markers=(".no-such-marker",)) is None
