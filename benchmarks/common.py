"""What every benchmark shares: the machine's description, interleaved timing, ratios and reports.

A benchmark is a script `benchmarks/bench_<what>.py`. It asserts first that rival and ours compute
the same, then times them in one process with `interleave`, prints its tables, and with `--report`
writes `benchmarks/results/<what>_<hardware>_<yyyymmdd>.md`:

    report = Report("step", "The fused optimizer step", parse_args(__doc__))
    times = interleave({"torch": rival, "fasttrain": ours}, rounds=30)
    report.times("ResNet-50's shapes", times, ours="fasttrain")
    report.finish()
"""

from __future__ import annotations

import argparse
import datetime
import gc
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "torch", "numpy", "fasttrain", "mmengine", "pytorch-ignite", "accelerate", "lightning",
    "deepspeed", "bitsandbytes",
)  # fmt: skip
SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (0.0, "ns"))


# ------------------------------------------------------------------------------ the machine
def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """The checkout's commit, with `-dirty` when tracked files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    revision = git("rev-parse", "--short=12", "HEAD")
    if not revision:
        return "unknown"
    return revision + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def environment() -> dict[str, str]:
    """Hardware, versions and commit, as the head of every report shows them."""
    rows = {"cpu": f"{cpu_model()}, {num_cores()} cores", "memory": _memory()}
    if torch.cuda.is_available():
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        rows["gpu"] = (
            f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()} (sm {capability})"
        )
        rows["cuda"] = str(torch.version.cuda)
    rows["system"] = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    for package in PACKAGES:
        try:
            rows[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    rows["threads"] = f"{torch.get_num_threads()} (torch)"
    rows["load"] = ", ".join(f"{value:.2f}" for value in os.getloadavg()) + " (1, 5, 15 minutes)"
    rows["commit"] = commit()
    rows["date"] = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    return rows


def hardware_slug() -> str:
    """A short name of the machine for file names, such as `amd-epyc-2c` or `nvidia-h100-1g`."""
    if torch.cuda.is_available():
        name, count = torch.cuda.get_device_name(), f"{torch.cuda.device_count()}g"
    else:
        name, count = cpu_model(), f"{num_cores()}c"
    name = re.sub(r"\(.*?\)|@.*|\bcpu\b|\bprocessor\b|\d+-core", " ", name, flags=re.IGNORECASE)
    return "-".join([*re.findall(r"[a-z0-9]+", name.lower())[:4], count])


def _memory() -> str:
    try:
        size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "unknown"
    return f"{size_bytes / 2**30:.0f} GiB"


# ------------------------------------------------------------------------------ timing
@dataclass(frozen=True)
class Spread:
    """Median with the 10th and 90th percentile of a sample."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Spread:
        if len(sample) < 2:
            return cls(sample[0], sample[0], sample[0])
        tenths = statistics.quantiles(sample, n=10, method="inclusive")
        return cls(statistics.median(sample), tenths[0], tenths[-1])

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} .. {self.high:.2f})"

    def seconds(self) -> str:
        """The spread as durations, in the unit that fits the median."""
        scale, unit = next(pair for pair in SCALES if abs(self.median) >= pair[0])
        scale = scale or 1e-9
        low, high = self.low / scale, self.high / scale
        return f"{self.median / scale:.3g} {unit} ({low:.3g} .. {high:.3g})"


def interleave(
    contestants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 20,
    warmup: int = 3,
    calls: int = 1,
    cuda: bool = False,
) -> dict[str, list[float]]:
    """Time all contestants in turn, `rounds` times, so that the machine's moods hit all alike.

    Args:
        contestants: name -> what one call does. The order rotates from round to round.
        rounds: number of samples per contestant.
        warmup: rounds that are not counted.
        calls: calls per sample; samples are seconds per call.
        cuda: time with CUDA events on the current stream instead of the host's clock.
    Returns:
        name -> one sample per round, in seconds per call.
    """
    clock = _cuda_seconds if cuda else _host_seconds
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(-warmup, rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                elapsed_s = clock(contestants[name], calls) / calls
                if turn >= 0:
                    times[name].append(elapsed_s)
            gc.collect(0)
    finally:
        if enabled:
            gc.enable()
    return times


def ratio(times: Mapping[str, Sequence[float]], rival: str, ours: str) -> Spread:
    """Spread of rival's time over ours, paired round by round; above 1 means ours is faster."""
    return Spread.of([a / b for a, b in zip(times[rival], times[ours], strict=True)])


def _host_seconds(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


def _cuda_seconds(call: Callable[[], Any], calls: int) -> float:
    start: Any = torch.cuda.Event(enable_timing=True)
    end: Any = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


# ------------------------------------------------------------------------------ reports
def parse_args(
    description: str | None, *, options: Callable[[argparse.ArgumentParser], Any] | None = None
) -> argparse.Namespace:
    """Arguments of a benchmark: `--report`, `--quick`, and what `options` adds to the parser."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--report", nargs="?", const=str(RESULTS), metavar="FOLDER",
        help="write a dated report (default folder: benchmarks/results)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few rounds: a look, not a result")
    if options is not None:
        options(parser)
    return parser.parse_args()


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table with aligned columns, readable on a terminal and in a report."""
    cells = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


class Report:
    """Prints tables as they come and writes them, with the machine and the command, at the end."""

    def __init__(self, what: str, title: str, args: argparse.Namespace) -> None:
        self.what = what
        self.args = args
        self._parts: list[str] = []
        command = shlex.join(["python", *map(_relative, sys.argv)])
        self._add(f"# {title}\n\nMade by `{command}`.")
        self.table("", ["", ""], list(environment().items()))

    def _add(self, text: str) -> None:
        print(text + "\n", flush=True)
        self._parts.append(text)

    def text(self, text: str) -> None:
        """A paragraph: what was measured and how to read it."""
        self._add(text)

    def table(self, title: str, headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table under its own heading (none for an empty title)."""
        table = markdown_table(headers, rows)
        self._add(f"## {title}\n\n{table}" if title else table)

    def times(self, title: str, times: Mapping[str, Sequence[float]], *, ours: str) -> None:
        """Median and spread of each contestant, and of the paired ratio rival / ours."""
        rows = [
            [name, Spread.of(sample).seconds(), "" if name == ours else ratio(times, name, ours)]
            for name, sample in times.items()
        ]
        self.table(title, ["", "median (p10 .. p90)", f"time over {ours}'s"], rows)

    def finish(self) -> Path | None:
        """Write the report if asked for; return its path."""
        if self.args.report is None:
            return None
        name = f"{self.what}_{hardware_slug()}_{datetime.date.today():%Y%m%d}.md"
        path = Path(self.args.report) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(self._parts) + "\n", encoding="utf-8")
        print(f"report: {path}")
        return path


def _relative(argument: str) -> str:
    if argument.startswith("-"):
        return argument
    path = Path(argument)
    return (
        str(path.resolve().relative_to(ROOT)) if path.resolve().is_relative_to(ROOT) else argument
    )
