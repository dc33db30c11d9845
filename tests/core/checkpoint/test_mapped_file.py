"""In a memory file system the next file is prepared ahead; it becomes an ordinary checkpoint."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
import torch

from fasttrain import native
from fasttrain.core.checkpoint import Writer, damage, load, remove_leftovers
from fasttrain.core.checkpoint.mapped_file import MappedFile, can_map
from support import assert_same

pytestmark = pytest.mark.skipif(
    not native.enabled() or not can_map("/dev/shm/x"), reason="no memory file system at /dev/shm"
)


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def state_of(step, size=400_000):
    return {"step": step, "w": torch.full((size,), float(step)), "v": torch.arange(5), "e": []}


def settle(writer):
    """Wait until the writer has prepared its next file."""
    writer.drain()
    writer.rest()


def test_files_written_into_memory_are_whole(folder):
    writer = Writer()
    for step in range(4):
        writer.submit(state_of(step), folder / f"{step}.pth")
        settle(writer)
        hidden = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        assert len(hidden) == 1
        assert remove_leftovers(folder) == []
    for step in range(4):
        assert damage(folder / f"{step}.pth") is None
        assert_same(torch.load(folder / f"{step}.pth", weights_only=True), state_of(step))
    sizes = {os.path.getsize(folder / f"{step}.pth") for step in range(4)}
    assert len(sizes) == 1
    assert writer.buffer_bytes < 1_800_000  # the prepared file has taken the buffer's place
    writer.close()
    assert writer.buffer_bytes == 0
    assert sorted(os.listdir(folder)) == [f"{step}.pth" for step in range(4)]


def test_a_state_that_outgrows_the_file_goes_the_other_way(folder):
    writer = Writer()
    for step, size in enumerate([400_000, 900_000, 300_000, 1_000]):
        writer.submit(state_of(step, size), folder / "a.pth")
        settle(writer)
        assert_same(load(folder / "a.pth"), state_of(step, size))
        assert damage(folder / "a.pth") is None
    writer.close()
    assert os.listdir(folder) == ["a.pth"]


def test_another_folder_goes_the_other_way(folder, tmp_path):
    writer = Writer()
    for path in (folder / "a.pth", tmp_path / "b.pth", folder / "c.pth"):
        writer.submit(state_of(1), path)
        settle(writer)
        assert_same(load(path), state_of(1))
    writer.close()
    assert sorted(os.listdir(folder)) == ["a.pth", "c.pth"]


def test_a_save_while_the_next_file_is_prepared(folder):
    writer = Writer()
    for step in range(6):
        writer.submit(state_of(step), folder / f"{step}.pth")
        writer.drain()
    writer.close()
    for step in range(6):
        assert_same(load(folder / f"{step}.pth"), state_of(step))
    assert len(os.listdir(folder)) == 6


def test_an_error_removes_the_file(folder):
    prepared = MappedFile(folder, 1 << 20)
    assert not prepared.take(_plan(torch.ones(10)), str(folder.parent / "a.pth"))
    assert prepared.take(_plan(torch.ones(10)), str(folder / "a.pth"))
    (folder / "a.pth").mkdir()
    with pytest.raises(IsADirectoryError):
        prepared.write(str(folder / "a.pth"), durable=True)
    assert os.listdir(folder) == ["a.pth"]


def test_the_end_of_the_process_removes_it(folder):
    def prepare():
        MappedFile(folder, 1 << 20)

    thread = threading.Thread(target=prepare)
    thread.start()
    thread.join()
    assert os.listdir(folder) == []


def _plan(tensor):
    from fasttrain.core.checkpoint import take_apart

    return take_apart({"w": tensor})
