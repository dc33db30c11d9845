"""Background saves: what is written is the state at submission; errors and exits lose nothing."""

import logging
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from fasttrain import native
from fasttrain.core.checkpoint import CheckpointError, Writer, damage, load
from fasttrain.core.checkpoint import writer as writer_module
from support import assert_same


@pytest.fixture(autouse=True, params=["native", "fallback"])
def path_of_code(request, monkeypatch):
    if request.param == "fallback":
        monkeypatch.setenv("FASTTRAIN_NATIVE", "0")
    elif not native.enabled():
        pytest.skip("the native module is not built")
    return request.param


@pytest.fixture
def writer():
    made = Writer()
    yield made
    made.close()


class Gate:
    """An `on_saved` that holds the writing thread until it is opened."""

    def __init__(self):
        self.opened = threading.Event()
        self.reached = threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.opened.wait(30)


def test_changes_after_submission_do_not_reach_the_file(tmp_path, writer):
    weights, numbers = torch.arange(300_000.0), [1, 2]
    writer.submit({"w": weights, "part": weights[5:7], "n": numbers}, tmp_path / "a.pth")
    weights.fill_(-1)
    numbers.append(3)
    writer.drain()
    loaded = load(tmp_path / "a.pth")
    assert_same(loaded["w"], torch.arange(300_000.0))
    assert loaded["n"] == [1, 2]
    loaded["w"][5] = 9
    assert loaded["part"][0] == 9
    assert damage(tmp_path / "a.pth") is None


def test_mutations_while_saves_are_in_flight(tmp_path, writer):
    weights = torch.zeros(20_000)
    for step in range(15):
        weights.fill_(step)
        writer.submit({"w": weights, "step": step}, tmp_path / "a.pth", durable=False)
        for _ in range(10):
            weights.add_(0.5)
        if os.path.exists(tmp_path / "a.pth"):
            loaded = load(tmp_path / "a.pth")
            assert torch.equal(loaded["w"], torch.full((20_000,), float(loaded["step"])))
    writer.drain()
    assert load(tmp_path / "a.pth")["step"] == 14


def test_the_memory_is_one_snapshot_and_reused(tmp_path, writer):
    state = {"w": torch.zeros(1_000_000)}
    for _ in range(5):
        writer.submit(state, tmp_path / "a.pth")
    writer.drain()
    assert 4_000_000 <= writer.buffer_bytes < 4_100_000
    writer.close()
    assert writer.buffer_bytes == 0


def test_on_saved_comes_after_the_file_and_in_order(tmp_path, writer):
    seen = []
    for step in range(4):
        path = tmp_path / f"{step}.pth"
        writer.submit({}, path, on_saved=lambda p=path: seen.append((p.name, p.exists())))
    writer.drain()
    assert seen == [(f"{step}.pth", True) for step in range(4)]


def test_a_further_save_waits(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("fasttrain.core.checkpoint.writer.NOTABLE_WAIT_S", 0.01)
    writer, gate = Writer(max_in_flight=1), Gate()
    writer.submit({"n": 1}, tmp_path / "a.pth", on_saved=gate)
    assert gate.reached.wait(30)
    assert writer.in_flight == 1
    threading.Timer(0.05, gate.opened.set).start()
    start = time.perf_counter()
    with caplog.at_level(logging.INFO, "fasttrain.checkpoint"):
        assert writer.submit({"n": 2}, tmp_path / "b.pth")
    assert time.perf_counter() - start > 0.03
    assert "b.pth waited 0." in caplog.text
    writer.close()
    assert load(tmp_path / "b.pth") == {"n": 2}


def test_a_further_save_is_skipped(tmp_path, caplog):
    writer, gate = Writer(policy="skip"), Gate()
    assert writer.submit({"n": 1}, tmp_path / "a.pth", on_saved=gate)
    assert gate.reached.wait(30)
    assert not writer.submit({"n": 2}, tmp_path / "b.pth")
    assert "b.pth is skipped: 1 saves are still in flight" in caplog.text
    gate.opened.set()
    writer.close()
    assert os.listdir(tmp_path) == ["a.pth"]


def test_several_in_flight(tmp_path):
    writer, gate = Writer(max_in_flight=2), Gate()
    writer.submit({"w": torch.ones(1000)}, tmp_path / "a.pth", on_saved=gate)
    writer.submit({"w": torch.zeros(1000)}, tmp_path / "b.pth")
    assert writer.in_flight == 2
    gate.opened.set()
    writer.close()
    assert load(tmp_path / "a.pth")["w"].sum() == 1000
    assert load(tmp_path / "b.pth")["w"].sum() == 0


def test_errors_come_up_at_the_next_call_and_the_old_file_stays(tmp_path, writer):
    path = tmp_path / "a.pth"
    writer.submit({"n": 1}, path)
    writer.drain()
    called = []
    (tmp_path / "file").write_text("")
    writer.submit({"n": 2}, tmp_path / "file" / "b.pth", on_saved=lambda: called.append(1))
    with pytest.raises(CheckpointError, match=r"file/b\.pth' could not be saved in the background"):
        writer.drain()
    assert called == []
    assert load(path) == {"n": 1}
    writer.submit({"n": 3}, path)  # the error was told once
    writer.drain()
    assert load(path) == {"n": 3}


def test_an_error_of_on_saved_comes_up_too(tmp_path, writer):
    def fail():
        raise OSError("no space for the pointer")

    writer.submit({}, tmp_path / "a.pth", on_saved=fail)
    with pytest.raises(CheckpointError, match="no space for the pointer"):
        writer.drain()


def test_a_state_that_cannot_be_saved_frees_its_place(tmp_path, writer):
    for _ in range(3):
        with pytest.raises(TypeError, match=r"checkpoint\['x'\] holds"):
            writer.submit({"x": object()}, tmp_path / "a.pth")
    assert writer.in_flight == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", ["pass", "raise RuntimeError('boom')", "raise SystemExit(3)"])
def test_a_process_that_ends_finishes_its_files(tmp_path, ending, path_of_code):
    if path_of_code == "fallback":
        pytest.skip("the same threads")
    code = (
        "import sys, torch; from fasttrain.core.checkpoint import Writer;"
        "Writer().submit({'w': torch.ones(2_000_000)}, sys.argv[1])\n" + ending
    )
    path = tmp_path / "a.pth"
    subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False)
    assert damage(path) is None
    assert os.listdir(tmp_path) == ["a.pth"]


@pytest.mark.parametrize(("argument", "value"), [("max_in_flight", 0), ("policy", "drop")])
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .*, got {value!r}"):
        Writer(**{argument: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("others_change_it", [False, True])
def test_gpu_storages_are_copied_before_they_change(tmp_path, writer, others_change_it):
    weight = torch.nn.Parameter(torch.ones(5_000_000, device="cuda"))
    buffer = torch.zeros(1000, device="cuda")
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for step in range(5):
        expected = weight.detach().clone()
        state = {"w": weight, "b": buffer, "host": torch.arange(step)}
        writer.submit(state, tmp_path / "a.pth", updated_by=[optimizer])
        buffer.add_(1)
        if others_change_it:
            weight.data.mul_(0.5)
        weight.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        writer.drain()
        loaded = load(tmp_path / "a.pth")
        assert torch.equal(loaded["w"].detach(), expected.cpu())
        assert torch.equal(loaded["b"], torch.full((1000,), float(step)))
        assert torch.equal(loaded["host"], torch.arange(step))


def test_an_interrupt_leaves_no_place_taken(tmp_path, writer, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "take_apart", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.submit({}, tmp_path / "a.pth")
    assert writer.in_flight == 0
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.submit({"step": 1}, tmp_path / "a.pth")
    writer.drain()  # starts the thread that was not
    assert load(tmp_path / "a.pth") == {"step": 1}


def test_an_error_behind_a_write_ends_no_later_save(tmp_path, writer, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "can_map", lambda path: 1 / 0)
        writer.submit({"step": 1}, tmp_path / "a.pth")
        writer.drain()
        writer.rest()
    assert "the thread that writes checkpoints failed" in caplog.text
    writer.submit({"step": 2}, tmp_path / "a.pth")
    writer.drain()
    assert load(tmp_path / "a.pth") == {"step": 2}


def test_the_memory_that_is_held_is_told(tmp_path, writer, caplog):
    with caplog.at_level(logging.INFO, "fasttrain.checkpoint"):
        for _ in range(3):
            writer.submit({"w": torch.ones(1 << 19)}, tmp_path / "a.pth")
            writer.drain()
    told = [line for line in caplog.messages if "of host memory are held" in line]
    assert told[0] == "2 MiB of host memory are held for checkpoints in the background"
    assert len(told) <= 2


def niceness_of_threads() -> dict[int, int]:
    """Thread id -> niceness, of this process."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/stat", encoding="utf-8") as file:
                found[int(thread)] = int(file.read().rpartition(")")[2].split()[16])
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are listed in /proc")
def test_only_threads_without_the_interpreter_give_way(tmp_path, writer, path_of_code):
    """One that holds the interpreter's lock would be waited for in vain while others run."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    writer.submit({"w": torch.ones(100)}, tmp_path / "warm.pth")
    writer.drain()
    gave_way = set()
    for _ in range(1 if path_of_code == "fallback" else 20):
        writer.submit({"w": torch.ones(1 << 24)}, tmp_path / "a.pth")
        while writer.in_flight:
            found = niceness_of_threads()
            gave_way |= {thread for thread, nice in found.items() if nice > usual}
            for thread in threading.enumerate():
                assert found.get(thread.native_id, usual) == usual
        if gave_way:
            break
    assert bool(gave_way) == (path_of_code == "native")
    assert damage(tmp_path / "a.pth") is None
