"""Kill, corrupt and fill up the disk under checkpoints, for minutes; not part of the test run.

    python tests/torture_checkpoint.py [--kills 200] [--flips 2000] [--folder FOLDER ...]

Prints one line for each trial kind and exits with 1 when any file lied. Filling up and write
protection need a small tmpfs of its own, so root; they are left out otherwise.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fasttrain.core.checkpoint import (
    CheckpointError,
    Retention,
    Writer,
    damage,
    load,
    newest_intact,
    read_pointer,
    remove_leftovers,
    save,
    write_pointer,
)

FLOATS = 1 << 20  # of the state, so 4 MiB


class Lie(AssertionError):
    """A file or a pointer that is not what it claims."""


def state_of(step: int) -> dict:
    weights = torch.full((FLOATS,), float(step))
    return {"meta": {"step": step}, "w": weights, "part": weights[7:70], "t": torch.tensor(step)}


def check_state(path: Path) -> int:
    """The step of a file that must be whole and consistent."""
    found = damage(path)
    if found is not None:
        raise Lie(f"{path} under its final name is damaged: {found}")
    loaded = load(path)
    step = int(loaded["meta"]["step"])
    if not bool((loaded["w"] == step).all()) or int(loaded["t"]) != step:
        raise Lie(f"{path} mixes the state of step {step} with another")
    return step


def check_folder(folder: Path) -> int:
    """The step to resume from; every file under a final name must be whole."""
    for path in folder.glob("*.pth"):
        check_state(path)
    pointed = read_pointer(folder)
    if pointed is not None:
        check_state(Path(pointed))
    newest = newest_intact(folder, damage, pointed=pointed)
    return 0 if newest is None else check_state(newest)


# ------------------------------------------------------------------------------ killed saves
def train(folder: Path, in_background: bool) -> None:
    """Resume, then save without end: one checkpoint a step, the two newest kept."""
    remove_leftovers(folder)
    start = check_folder(folder)
    names = sorted((p.name for p in folder.glob("*.pth")), key=lambda name: int(name[5:-4]))
    retention = Retention(2, names)
    writer = Writer()
    for step in range(start + 1, start + 10_000):
        path = folder / f"step_{step}.pth"

        def finish(path: Path = path) -> None:
            write_pointer(folder, path)
            for name in retention.add(path.name):
                (folder / name).unlink(missing_ok=True)

        state = state_of(step)
        if in_background:
            writer.submit(state, path, on_saved=finish)
            state["w"].fill_(-1)  # training goes on
        else:
            save(state, path)
            finish()


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process, which shares the imported modules."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except KeyboardInterrupt:
            status = 3
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            if status == 3:
                wait_for_writers()
            os._exit(status)
    return pid


def wait_for_writers() -> None:
    """What the interpreter does at its end: wait for the threads that are no daemons."""
    import threading

    threading._shutdown()


def kill_midway(folder: Path, rounds: int, draw: random.Random) -> str:
    """Kill a saving process at a random moment; whatever it left must be whole."""
    step, progressed = 0, 0
    for turn in range(rounds):
        pid = in_child(lambda turn=turn: train(folder, in_background=turn % 4 != 0))  # type: ignore[misc]
        time.sleep(draw.uniform(0.0, 0.4))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = check_folder(folder)
        if found < step:
            raise Lie(f"after kill {turn} the folder went back from step {step} to {found}")
        progressed += found > step
        step = found
    remove_leftovers(folder)
    left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
    if left:
        raise Lie(f"temporary files stay: {left}")
    return f"{rounds} kills, {step} steps saved, progress after {progressed} of them"


def interrupt_midway(folder: Path, rounds: int, draw: random.Random) -> str:
    """Ctrl-C: the save under way is finished and no temporary file stays."""
    for _ in range(rounds):
        pid = in_child(lambda: train(folder, in_background=True))
        time.sleep(draw.uniform(0.05, 0.2))
        os.kill(pid, signal.SIGINT)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != 3:
            raise Lie(f"an interrupted process ended with {os.waitstatus_to_exitcode(status)}")
        check_folder(folder)
        remove_leftovers(folder)
    return f"{rounds} interrupts, {check_folder(folder)} steps saved"


# ------------------------------------------------------------------------------ damage
def flip_bits(folder: Path, rounds: int, draw: random.Random) -> str:
    """One flipped bit anywhere must be noticed, and the older file be taken."""
    for step in (1, 2):
        save(state_of(step), folder / f"step_{step}.pth")
        os.utime(folder / f"step_{step}.pth", (step, step))
    path = folder / "step_2.pth"
    size = path.stat().st_size
    edges = [*range(4096), *range(size - 4096, size)]
    for turn in range(rounds):
        offset = draw.choice(edges) if turn % 2 else draw.randrange(size)
        bit = 1 << draw.randrange(8)
        flip(path, offset, bit)
        if damage(path) is None:
            raise Lie(f"bit {bit} of byte {offset} of {size} flipped unnoticed")
        if turn % 50 == 0 and newest_intact(folder, damage) != folder / "step_1.pth":
            raise Lie("the damaged file was chosen to resume from")
        flip(path, offset, bit)
    check_state(path)
    return f"{rounds} flipped bits in {size} bytes noticed"


def flip(path: Path, offset: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


def mutate(folder: Path, rounds: int, draw: random.Random) -> str:
    """Change the weights while saves are in flight: no file may show it."""
    writer = Writer(max_in_flight=2)
    weights = torch.zeros(FLOATS)
    for step in range(rounds):
        weights.fill_(step)
        state = {"meta": {"step": step}, "w": weights, "t": torch.tensor(step)}
        writer.submit(state, folder / f"step_{step % 3}.pth", durable=False)
        for _ in range(draw.randrange(20)):
            weights.add_(1)
    writer.close()
    for path in folder.glob("*.pth"):
        check_state(path)
    return f"{rounds} saves of weights that change meanwhile"


# ------------------------------------------------------------------------------ full disks
@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fasttrain-full-"))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)
        folder.rmdir()


def fill_up(rounds: int, draw: random.Random) -> str:
    """A full disk: a clear error, the old files and the pointer stay, and it recovers."""
    for turn in range(rounds):
        with small_disk(draw.choice([10, 13, 17])) as folder:
            in_background = turn % 2 == 0
            fill_until_error(folder, in_background)
            check_folder(folder)
            left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
            if left:
                raise Lie(f"a failed save left {left}")
            next(folder.glob("*.pth")).unlink()
            save(state_of(99), folder / "step_99.pth")
            check_state(folder / "step_99.pth")
    return f"{rounds} full disks"


def fill_until_error(folder: Path, in_background: bool) -> None:
    writer = Writer()
    try:
        for step in range(1, 100):
            path = folder / f"step_{step}.pth"
            if in_background:
                writer.submit(
                    state_of(step), path, on_saved=lambda p=path: write_pointer(folder, p)
                )
                writer.drain()
            else:
                save(state_of(step), path)
                write_pointer(folder, path)
    except (CheckpointError, OSError) as error:
        cause = error.__cause__ if isinstance(error, CheckpointError) else error
        if not isinstance(cause, OSError) or cause.errno != errno.ENOSPC:
            raise
        if str(folder) not in str(error):
            raise Lie(f"the error does not name the file: {error}") from error
    else:
        raise Lie("a hundred files fit on a full disk")
    finally:
        writer.close()


def write_protect() -> str:
    """A folder that becomes read-only: a clear error, the old file stays."""
    with small_disk(30) as folder:
        save(state_of(1), folder / "step_1.pth")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        try:
            save(state_of(2), folder / "step_1.pth")
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
        else:
            raise Lie("a read-only folder was written to")
        if check_state(folder / "step_1.pth") != 1:
            raise Lie("the old file is gone")
    return "a read-only folder"


# ------------------------------------------------------------------------------ all of it
def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    default = [Path(tempfile.gettempdir()), Path("/dev/shm")]
    parser.add_argument("--folder", type=Path, nargs="+", default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the forked processes must not wait for threads that stayed behind
    logging.disable(logging.ERROR)  # the damage that is reported is the damage that is made
    draw = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    trials: list[tuple[str, Callable[[Path], str]]] = [
        ("kill -9", lambda folder: kill_midway(folder, options.kills, draw)),
        ("Ctrl-C", lambda folder: interrupt_midway(folder, options.kills // 10, draw)),
        ("bit flips", lambda folder: flip_bits(folder, options.flips, draw)),
        ("mutation", lambda folder: mutate(folder, options.kills, draw)),
    ]
    failures = 0
    for name, trial in trials:
        for parent in options.folder:
            folder = Path(tempfile.mkdtemp(prefix="fasttrain-torture-", dir=parent))
            failures += not report(f"{name} in {parent}", lambda t=trial, f=folder: t(f))  # type: ignore[misc]
            shutil.rmtree(folder)
    try:
        with small_disk(1):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"full disks and write protection: left out, no mount ({error})")
        return int(failures > 0)
    failures += not report("full disk", lambda: fill_up(max(options.kills // 10, 2), draw))
    failures += not report("write protection", write_protect)
    return int(failures > 0)


def report(name: str, trial: Callable[[], str]) -> bool:
    start = time.perf_counter()
    try:
        found = trial()
    except Lie as lie:
        print(f"{name}: FAILED: {lie}", flush=True)
        return False
    print(f"{name}: {found} ({time.perf_counter() - start:.0f} s)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
