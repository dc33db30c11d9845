"""Full disks, quotas, folders that vanish or refuse, forks and signals: old files stay whole."""

import errno
import gc
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

from fasttrain import native
from fasttrain.core.checkpoint import (
    CheckpointError,
    Writer,
    damage,
    load,
    remove_leftovers,
    save,
)

SHARED_MEMORY = Path("/dev/shm")
FLOATS = 1 << 18  # 1 MiB


@pytest.fixture(autouse=True, params=["native", "fallback"])
def path_of_code(request, monkeypatch):
    if request.param == "fallback":
        monkeypatch.setenv("FASTTRAIN_NATIVE", "0")
    elif not native.enabled():
        pytest.skip("the native module is not built")
    return request.param


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    """A folder of a disk, and one of a memory file system, where files are prepared."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("no memory file system")
    made = SHARED_MEMORY / f"fasttrain-test-{os.getpid()}"
    made.mkdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def state_of(step):
    return {"step": step, "w": torch.full((FLOATS,), float(step))}


def step_of(path):
    assert damage(path) is None
    loaded = load(path)
    assert bool((loaded["w"] == loaded["step"]).all())
    return loaded["step"]


def files(folder):
    return sorted(os.listdir(folder))


class Child:
    """A forked process that does `work`; what it returns or raises is read as text."""

    def __init__(self, work):
        self.read_end, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write_end)
            return
        os.close(self.read_end)
        torch.set_num_threads(1)  # torch's own threads do not survive a fork
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            if isinstance(error, KeyboardInterrupt):
                threading._shutdown()  # as the interpreter's end does
        os.write(write_end, said.encode()[:4000])
        os._exit(0)

    def end(self, timeout_s=60.0):
        """What it said, and its exit status."""
        deadline = time.monotonic() + timeout_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError("the child hangs")
            time.sleep(0.005)
        with os.fdopen(self.read_end, "rb") as pipe:
            return pipe.read().decode(), os.waitstatus_to_exitcode(status)


def test_a_quota_that_is_met_midway(folder):
    """Files may grow to half a MiB only: the write fails in the middle of the tensor."""

    def attempts():
        writer = Writer()
        save(state_of(1), folder / "a.pth")
        writer.submit(state_of(1), folder / "b.pth")
        writer.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
        said = []
        for attempt in (
            lambda: save(state_of(2), folder / "a.pth"),
            lambda: (writer.submit(state_of(2), folder / "c.pth"), writer.drain()),
            lambda: (writer.submit(state_of(3), folder / "c.pth"), writer.drain()),
        ):
            try:
                attempt()
            except (OSError, CheckpointError) as error:
                names_all = "File too large" in str(error) and str(folder) in str(error)
                said.append(f"{type(error).__name__} {names_all}")
        writer.close()
        return said

    assert Child(attempts).end() == (
        "['OSError True', 'CheckpointError True', 'CheckpointError True']",
        0,
    )
    assert [step_of(folder / name) for name in ("a.pth", "b.pth")] == [1, 1]
    assert files(folder) == ["a.pth", "b.pth"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MiB; mounting needs root."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not permitted")
    yield place
    subprocess.run(["umount", str(place)], check=False)


@pytest.mark.parametrize("in_background", [False, True])
def test_a_full_disk(small_disk, in_background):
    writer = Writer()

    def save_step(step):
        path = small_disk / f"{step}.pth"
        if in_background:
            writer.submit(state_of(step), path)
            writer.drain()
        else:
            save(state_of(step), path)

    with pytest.raises((OSError, CheckpointError), match=r"\d\.pth'.*No space left") as caught:
        for step in range(9):
            save_step(step)
    cause = caught.value.__cause__ if in_background else caught.value
    assert cause.errno == errno.ENOSPC
    writer.close()
    names = files(small_disk)
    assert names == [f"{step}.pth" for step in range(len(names))]
    assert len(names) >= 2
    assert [step_of(small_disk / name) for name in names] == list(range(len(names)))
    (small_disk / "0.pth").unlink()
    save_step(8)  # there is room again
    assert step_of(small_disk / "8.pth") == 8
    writer.close()


@pytest.mark.parametrize("in_background", [False, True])
def test_a_read_only_folder(small_disk, in_background):
    save(state_of(1), small_disk / "a.pth")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    writer = Writer()
    with pytest.raises((OSError, CheckpointError), match=r"a\.pth'.*Read-only file system"):
        if in_background:
            writer.submit(state_of(2), small_disk / "a.pth")
            writer.drain()
        else:
            save(state_of(2), small_disk / "a.pth")
    writer.close()
    assert step_of(small_disk / "a.pth") == 1


def test_a_folder_that_vanishes_while_it_is_written_to(folder, monkeypatch):
    place = folder / "run"
    save(state_of(1), place / "a.pth")
    writer = Writer()
    rename = os.replace
    gone = threading.Event()

    def replace(source, target):
        if not gone.is_set():
            gone.set()
            shutil.rmtree(place)
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    writer.submit(state_of(2), place / "a.pth")
    with pytest.raises(CheckpointError, match=r"run/a\.pth'.*No such file or directory"):
        writer.drain()
    writer.submit(state_of(3), place / "a.pth")  # makes the folder anew
    writer.drain()
    assert step_of(place / "a.pth") == 3
    shutil.rmtree(place)  # with a file prepared in it, perhaps
    try:
        writer.submit(state_of(4), place / "a.pth")
        writer.drain()
    except CheckpointError as error:
        assert "No such file or directory" in str(error)
        writer.submit(state_of(4), place / "a.pth")
        writer.drain()
    assert step_of(place / "a.pth") == 4
    writer.close()


def test_a_relative_path_and_another_working_folder(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder)
    writer = Writer()
    release = threading.Event()
    writer.submit(state_of(1), "a.pth", on_saved=lambda: release.wait(60))
    writer.max_in_flight = 2
    writer.submit(state_of(2), "b.pth")
    monkeypatch.chdir(folder / "elsewhere")
    release.set()
    writer.close()
    assert files(folder) == ["a.pth", "b.pth", "elsewhere"]
    assert files(folder / "elsewhere") == []


def test_links_are_replaced_and_what_they_name_stays(folder):
    save(state_of(1), folder / "real.pth")
    (folder / "link.pth").symlink_to(folder / "real.pth")
    (folder / "work").symlink_to(folder)
    save(state_of(2), folder / "work" / "link.pth")
    assert step_of(folder / "real.pth") == 1
    assert step_of(folder / "link.pth") == 2
    assert not (folder / "link.pth").is_symlink()


def test_forks_in_the_middle_of_saves(folder):
    """Children that end in every way neither remove the parent's files nor hang."""
    states = {step: state_of(step) for step in range(1, 104)}
    writer = Writer()

    def child(step):
        nonlocal writer
        if step == 1:
            writer = None
            gc.collect()
        if step == 2:
            save(states[102], folder / "child.pth")
        if step == 3:
            own = Writer()
            own.submit(states[103], folder / "background.pth")
            own.close()
        weakref.finalize._exitfunc()  # as an interpreter's end does

    for step in (1, 2, 3):
        writer.submit(states[step], folder / "a.pth")
        during = Child(lambda step=step: child(step))
        writer.drain()
        after = Child(lambda step=step: child(step))
        assert [during.end(), after.end()] == [("None", 0)] * 2
    writer.submit(states[9], folder / "a.pth")
    writer.close()
    assert step_of(folder / "a.pth") == 9
    assert step_of(folder / "child.pth") == 102
    assert step_of(folder / "background.pth") == 103
    assert files(folder) == ["a.pth", "background.pth", "child.pth"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_while_saving(folder, number):
    def saves():
        writer = Writer()
        for step in range(1, 100_000):
            writer.submit(state_of(step), folder / f"{step % 3}.pth")

    process = Child(saves)
    while len(list(folder.glob("*.pth"))) < 3:
        time.sleep(0.005)
    os.kill(process.pid, number)
    interrupted = number is signal.SIGINT
    assert process.end()[1] == (0 if interrupted else -number)
    for path in folder.glob("*.pth"):
        step_of(path)
    if interrupted:
        remove_leftovers(folder)  # a prepared file, which only the interpreter's end removes
        assert not list(folder.glob(".*.tmp"))
