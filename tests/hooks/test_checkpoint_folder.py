"""The folder of a run: where it is, what it points at, what goes."""

import logging
import os
from collections import deque
from pathlib import Path

import pytest

from fasttrain.hooks.checkpoint_folder import (
    CheckpointFolder,
    admit_step,
    newest_steps,
    storage_options,
)

LOGGER = logging.getLogger("test_checkpoint_folder")


@pytest.mark.parametrize("trailing", ["", "/"])
def test_the_folder_has_the_work_folders_name(tmp_path: Path, trailing: str) -> None:
    work = tmp_path / "run"
    work.mkdir()
    folder = CheckpointFolder(f"{work}{trailing}", tmp_path / "out", None, LOGGER)
    assert folder.path == str(tmp_path / "out" / "run")
    assert folder.file("a.pth") == str(tmp_path / "out" / "run" / "a.pth")
    folder.point_at("somewhere/a.pth")
    assert (work / "last_checkpoint").read_text() == "somewhere/a.pth"
    folder.release()
    folder.release()


def test_removing(tmp_path: Path) -> None:
    folder = CheckpointFolder(str(tmp_path), None, None, LOGGER)
    (tmp_path / "file.pth").touch()
    (tmp_path / "folder.pth" / "part").mkdir(parents=True)
    assert folder.holds(str(tmp_path / "file.pth"))
    for name in ("file.pth", "folder.pth", "gone.pth"):
        folder.remove(folder.file(name))
    assert [name for name in os.listdir(tmp_path) if name.endswith(".pth")] == []
    assert not folder.holds(str(tmp_path / "file.pth"))
    folder.release()


def test_what_a_killed_run_left_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    left = tmp_path / f".epoch_1.pth.here+{2**22 + 1}+0123abcd.tmp"
    left.touch()
    CheckpointFolder(str(tmp_path), None, None, LOGGER).release()
    assert not left.exists()
    assert f"Removed {left}, left by a save that was killed" in caplog.text


def test_kept_steps() -> None:
    kept, others = newest_steps([1, 2, 3], 2)
    assert (list(kept), others) == ([2, 3], [1])
    assert newest_steps([], 2) == (deque(maxlen=2), [])
    assert [admit_step(kept, step) for step in (3, 4, 5)] == [None, 2, 3]
    assert list(kept) == [4, 5]


def test_the_old_name_of_the_options() -> None:
    assert storage_options(None, {"a": 1}) == {"a": 1}
    assert storage_options({"b": 1}, None) == {"b": 1}
    with pytest.raises(ValueError, match="cannot be set at the same time"):
        storage_options({}, {})
