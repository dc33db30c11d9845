import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain.core.checkpoint import place_of
from fasttrain.hooks.log_files import copy_logs, is_suffix, plain, remove_logs, write_json

FILES = ("a.json", "b.log", "sub/c.py", "d.pth")


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "logs"


def test_plain() -> None:
    value = {
        "a": torch.tensor(1.5), "b": np.array([1, 2]), "c": [np.float32(2)], "d": {"e": "x"},
        "f": None,
    }  # fmt: skip
    assert plain(value) == {"a": 1.5, "b": [1, 2], "c": [2.0], "d": {"e": "x"}, "f": None}


def test_write_json(tmp_path: Path) -> None:
    write_json({"a": 1}, str(tmp_path / "new" / "a.json"))
    assert (tmp_path / "new" / "a.json").read_text() == '{"a": 1}'


@pytest.mark.parametrize("suffix", [".json", (".json", "log"), []])
def test_is_suffix(suffix) -> None:
    assert is_suffix(suffix)


@pytest.mark.parametrize("suffix", [3, (".json", 3), None])
def test_is_no_suffix(suffix) -> None:
    assert not is_suffix(suffix)


def test_copies_keep_their_folders(log_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    copied = copy_logs(log_dir, str(out), (".json", ".py"), place_of(str(out)))
    assert copied == [
        (log_dir / "a.json", str(out / "a.json")),
        (log_dir / "sub/c.py", str(out / "sub/c.py")),
    ]
    assert (out / "sub" / "c.py").read_text() == "sub/c.py"
    assert all((log_dir / name).exists() for name in FILES)


def test_copies_to_a_url(log_dir: Path) -> None:
    place = place_of("memory://logs")
    copied = copy_logs(log_dir, "memory://logs/run", ".json", place)
    assert [target for _, target in copied] == ["memory://logs/run/a.json"]
    assert place.get_text("memory://logs/run/a.json") == "a.json"
    assert (log_dir / "a.json").exists()


def test_removal_closes_open_files(log_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test_log_files")
    logger.addHandler(logging.FileHandler(log_dir / "b.log"))
    with caplog.at_level(logging.INFO):
        remove_logs(logger, [(log_dir / "b.log", "there/b.log")])
    assert not (log_dir / "b.log").exists() and (log_dir / "a.json").exists()
    assert not logger.handlers
    assert "You can check the running logs in there/b.log" in caplog.text
