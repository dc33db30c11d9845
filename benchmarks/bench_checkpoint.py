"""Checkpoints beside torch.save, DCP's async_save and mmengine: stall, durable time, steps, memory.

    python benchmarks/bench_checkpoint.py [--megabytes 256] [--tmpfs /dev/shm] [--disk FOLDER]
    python benchmarks/bench_checkpoint.py --gpu [--gigabytes 12]      a large state on a GPU instead

All contestants save the same state. The stall is the time until the training thread may change the
state again. The durable time runs from the call until a file with right checksums is on the medium
(fsync included). The rows "no save" are what the machine needs for one copy of the same bytes.
Each sample writes a new file; files are deleted, and what still runs in the background ends,
between samples.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from checkpoint_gpu import report_gpu
from common import Report, parse_args

from fasttrain import native
from fasttrain.core.checkpoint import Writer, damage, save, take_apart

MEGABYTE = 1 << 20
USUAL_MEGABYTES = 256
MAX_STEPS_S = 60.0
Save = Callable[[dict, Path], None]


def make_state(megabytes: int) -> dict[str, Any]:
    """Weights and two moments of a network: tensors of many sizes."""
    generator = torch.Generator().manual_seed(0)
    sizes = [1, 2, 4, 8, 16, 1 / 64, 1 / 64, 1 / 256]  # shares, as layers and their biases have
    unit = megabytes * MEGABYTE / 4 / (12 * sum(sizes))
    tree: dict[str, Any] = {"meta": {"epoch": 3, "cfg": "text " * 500}}
    for part in ("state_dict", "exp_avg", "exp_avg_sq"):
        tree[part] = {
            f"layer{block}.{i}": torch.randn(max(1, int(unit * size)), generator=generator)
            for block in range(4)
            for i, size in enumerate(sizes)
        }
    return tree


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


# ------------------------------------------------------------------------------ contestants
class Contestant:
    """Saves in the foreground by one function."""

    writes = True

    def __init__(self, function: Save) -> None:
        self.function = function

    def start(self, state: dict, path: Path) -> None:
        """Return once the state may change."""
        self.function(state, path)

    def finish(self, path: Path) -> None:
        """Return once the file is durable."""
        sync(path)

    def settle(self) -> None:
        """End what still runs in the background."""


class PlainCopy(Contestant):
    """No save, but the least that one could take which copies the state: into kept memory."""

    writes = False

    def __init__(self, state: dict, *, streamed: bool) -> None:
        plan = take_apart(state)
        self.sources = [torch.empty(0, dtype=torch.uint8).set_(s) for s in plan.storages]
        self.targets = [torch.zeros_like(source) for source in self.sources]
        self.streamed = streamed

    def start(self, state: dict, path: Path) -> None:
        if not self.streamed:
            for source, target in zip(self.sources, self.targets, strict=True):
                target.copy_(source)
            return
        spans = [(source.data_ptr(), source.numel()) for source in self.sources]
        targets = [target.data_ptr() for target in self.targets]
        native.module().checkpoint_copy(spans, targets, torch.get_num_threads())

    def finish(self, path: Path) -> None:
        pass


class Ours(Contestant):
    def __init__(self) -> None:
        self.writer = Writer()

    def start(self, state: dict, path: Path) -> None:
        self.writer.submit(state, path)

    def finish(self, path: Path) -> None:
        self.writer.drain()

    def settle(self) -> None:
        self.writer.rest()


class DistributedCheckpoint(Contestant):
    """torch.distributed.checkpoint.async_save; without a stager it copies into new memory."""

    def __init__(self, stager: Any = None) -> None:
        import torch.distributed.checkpoint as dcp

        if not torch.distributed.is_initialized():
            store = Path(tempfile.mkdtemp(prefix="fasttrain-bench-")) / "store"
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{store}", rank=0, world_size=1
            )
        self.dcp = dcp
        self.options = {} if stager is None else {"async_stager": stager}
        self.future: Any = None

    def start(self, state: dict, path: Path) -> None:
        found = self.dcp.async_save(state, checkpoint_id=path, **self.options)
        if hasattr(found, "staging_completion"):
            found.staging_completion.result()
            found = found.upload_completion
        self.future = found

    def finish(self, path: Path) -> None:
        self.future.result()


def reusing_stager() -> Any:
    """DCP's stager that keeps its memory from save to save."""
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    return DefaultStager(
        StagingOptions(
            use_pinned_memory=False,
            use_shared_memory=False,
            use_async_staging=False,
            use_non_blocking_copy=False,
        )
    )


@contextmanager
def without_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(True)


def torch_without_checksums(state: dict, path: Path) -> None:
    with without_checksums():
        torch.save(state, path)


def contestants(state: dict) -> dict[str, Contestant]:
    found = {"torch.save": Contestant(torch.save)}
    if hasattr(torch.serialization, "set_crc32_options"):
        found["torch.save, no checksums"] = Contestant(torch_without_checksums)
    try:
        from mmengine.runner import save_checkpoint

        found["mmengine"] = Contestant(lambda state, path: save_checkpoint(state, str(path)))
    except ImportError:
        pass
    found["DCP async_save"] = DistributedCheckpoint()
    with suppress(ImportError):
        found["DCP async_save, kept staging"] = DistributedCheckpoint(reusing_stager())
    found["fasttrain, foreground"] = Contestant(lambda state, path: save(state, path))
    found["fasttrain"] = Ours()
    found["no save: a copy by torch"] = PlainCopy(state, streamed=False)
    if native.enabled():
        found["no save: a copy past the cache"] = PlainCopy(state, streamed=True)
    return found


# ------------------------------------------------------------------------------ measurements
def check(names: dict[str, Contestant], state: dict, folder: Path) -> None:
    """Ours must hold the very tensors, with right checksums, before anything is timed."""
    path = folder / "check.pth"
    for name in ("fasttrain, foreground", "fasttrain"):
        names[name].start(state, path)
        names[name].finish(path)
        loaded = torch.load(path, weights_only=True)
        for part in ("state_dict", "exp_avg", "exp_avg_sq"):
            assert all(torch.equal(loaded[part][key], state[part][key]) for key in state[part])
        assert damage(path) is None
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
        names[name].settle()
        path.unlink()


def measure(
    names: dict[str, Contestant], state: dict, folder: Path, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Stall and durable time of each contestant, interleaved."""
    stalls: dict[str, list[float]] = {name: [] for name in names}
    durable: dict[str, list[float]] = {name: [] for name in names}
    order = list(names)
    for turn in range(-2, rounds):
        shift = turn % len(order)
        for name in order[shift:] + order[:shift]:
            path = folder / f"{turn}.pth"
            start = time.perf_counter()
            names[name].start(state, path)
            stall = time.perf_counter() - start
            names[name].finish(path)
            total = time.perf_counter() - start
            names[name].settle()
            if turn >= 0:
                stalls[name].append(stall)
                durable[name].append(total)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return stalls, {name: found for name, found in durable.items() if names[name].writes}


def step_times(ours: Ours, folder: Path, megabytes: int, steps: int) -> list[list[Any]]:
    """Step times of a small network without saves and while saves are in flight."""
    state = make_state(megabytes)
    model = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(8)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(128, 512)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        return time.perf_counter() - start

    for _ in range(20):
        step()
    quiet: list[float] = []
    saving: list[float] = []
    durations: list[float] = []
    end = time.perf_counter() + MAX_STEPS_S
    while len(saving) < steps and (time.perf_counter() < end or not saving):
        quiet += [step() for _ in range(100)]
        start = time.perf_counter()
        ours.start(state, folder / "steps.pth")
        while ours.writer.is_at_work:  # also on what it prepares for the next save
            saving.append(step())
        durations.append(time.perf_counter() - start)
    (folder / "steps.pth").unlink()
    rows = []
    for name, sample in (("no save", quiet), ("a save at work", saving)):
        cuts = statistics.quantiles(sample, n=100, method="inclusive")
        rows.append([name, len(sample), *(f"{1e3 * cuts[k]:.2f} ms" for k in (49, 98))])
    ratio = statistics.quantiles(saving, n=100)[98] / statistics.quantiles(quiet, n=100)[98]
    rows.append(["p99 over p99", "", "", f"{ratio:.2f}"])
    seconds = f"{statistics.median(durations):.2f} s"
    rows.append([f"a save beside the steps ({len(durations)} of them)", "", seconds, ""])
    return rows


def resident_megabytes() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def memory(folder: Path, megabytes: int, saves: int) -> list[list[Any]]:
    """Resident memory of this process over many saves of a state."""
    state = make_state(megabytes)
    ours = Ours()
    before = resident_megabytes()
    rows = [["before the first", f"{before:.0f}", ""]]
    for count in range(1, saves + 1):
        ours.start(state, folder / "memory.pth")
        ours.finish(folder / "memory.pth")
        ours.settle()
        if count in (1, 5, saves):
            held = ours.writer.buffer_bytes / MEGABYTE
            rows.append([f"after {count}", f"{resident_megabytes():.0f}", f"{held:.0f}"])
    ours.writer.close()
    (folder / "memory.pth").unlink()
    return rows


# ------------------------------------------------------------------------------ the report
def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=int, default=USUAL_MEGABYTES, help="size of the state")
    parser.add_argument("--rounds", type=int, help="samples per contestant")
    parser.add_argument("--gpu", action="store_true", help="only the saves of a state on a GPU")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="size of the GPU's state")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()))


def main_gpu(args: argparse.Namespace) -> int:
    report = Report("checkpoint_gpu", "Saving checkpoints of a GPU", args)
    if not torch.cuda.is_available():
        report.text("There is no GPU here.")
        return 0
    saves = args.rounds or (3 if args.quick else 8)
    reached = report_gpu(report, args.gigabytes, saves, [args.tmpfs, args.disk])
    report.finish()
    return 0 if reached else 1


def main() -> int:
    args = parse_args(__doc__, options=options)
    if args.gpu:
        return main_gpu(args)
    rounds = args.rounds or (5 if args.quick else 15)
    name = "checkpoint" if args.megabytes == USUAL_MEGABYTES else f"checkpoint_{args.megabytes}mb"
    report = Report(name, "Saving checkpoints", args)
    load = os.getloadavg()[0]
    report.text(
        f"{args.megabytes} MB in {len(make_state(1)['state_dict']) * 3} tensors, {rounds} rounds, "
        f"load average {load:.1f} at the start (above 0.5, others were using the cores)."
    )
    state = make_state(args.megabytes)
    names = contestants(state)
    for kind, parent in (("tmpfs", args.tmpfs), ("disk", args.disk)):
        folder = Path(tempfile.mkdtemp(prefix="fasttrain-bench-", dir=parent))
        try:
            check(names, state, folder)
            stalls, durable = measure(names, state, folder, rounds)
            report.times(f"Stall of the training thread, {kind}", stalls, ours="fasttrain")
            report.times(f"Durable file, {kind}", durable, ours="fasttrain")
            rows = step_times(
                names["fasttrain"], folder, args.megabytes, 400 if args.quick else 2000
            )  # type: ignore[arg-type]
            report.table(f"Steps of a network, {kind}", ["", "steps", "median", "p99"], rows)
        finally:
            shutil.rmtree(folder)
    folder = Path(tempfile.mkdtemp(prefix="fasttrain-bench-", dir=args.disk))
    try:
        rows = memory(folder, args.megabytes // 4, 20 if args.quick else 100)
        title = f"Host memory over saves of {args.megabytes // 4} MB, MB"
        report.table(title, ["", "resident", "held for snapshots"], rows)
    finally:
        shutil.rmtree(folder)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
