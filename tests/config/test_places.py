"""Where config files are."""

import pytest

from fasttrain.config.places import (
    find_in_package,
    is_remote,
    read_text,
    resolve_base,
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name in (".mim/configs/a.py", "configs/sub/b.py"):
        (tmp_path / "place_pack" / name).parent.mkdir(parents=True)
        (tmp_path / "place_pack" / name).write_text("x = 1")
    (tmp_path / "place_pack/__init__.py").write_text("raise RuntimeError('not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "place_pack"


def test_configs_of_packages(package):
    assert find_in_package("place_pack", "a.py") == f"{package}/.mim/configs/a.py"
    assert find_in_package("place_pack", "sub/b.py") == f"{package}/configs/sub/b.py"
    with pytest.raises(FileNotFoundError, match=r"'c.py' is neither .*/\.mim/configs/c.py nor"):
        find_in_package("place_pack", "c.py")
    with pytest.raises(ModuleNotFoundError, match="Package not_a_package is not installed"):
        find_in_package("not_a_package", "c.py")


@pytest.mark.parametrize(
    ("base", "filename", "path"),
    [
        ("b.py", "/x/a.py", "/x/b.py"),
        ("../b.py", "y/a.py", "y/../b.py"),
        ("/z/b.py", "/x/a.py", "/z/b.py"),
        ("s3://z/b.py", "/x/a.py", "s3://z/b.py"),
        ("../b.py", "s3://x/y/a.py", "s3://x/b.py"),
    ],
)
def test_resolve_base(base, filename, path):
    assert resolve_base(base, filename) == (path, None)


def test_resolve_base_of_a_package(package):
    assert resolve_base("place_pack::a.py", "/x/a.py") == (
        f"{package}/.mim/configs/a.py", "place_pack",
    )  # fmt: skip


def test_read_text(tmp_path):
    import fsspec

    (tmp_path / "a").write_text("é", encoding="utf-8")
    fsspec.filesystem("memory").pipe("/text/a", "ü".encode())
    assert read_text(tmp_path / "a") == "é" and read_text("memory://text/a") == "ü"
    assert is_remote("memory://text/a") and not is_remote("/a:/b")
