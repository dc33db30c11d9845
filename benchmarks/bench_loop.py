"""What a runner adds to a hand-written loop, per iteration.

One process runs a plain PyTorch loop, fasttrain's Runner, mmengine's Runner and other frameworks on
the same model, batches and weights, in turn and round by round. The overhead of a contestant is its
time per iteration less that of the plain loop in the same round.
"""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import Report, Spread, parse_args
from loop_contestants import Job, Outcome, accelerate, ignite, lightning, plain_loop, runner

# Losses -> how many times ours mmengine's overhead must be, after a long run.
FLOORS = {1: 6.0, 20: 12.0}
LOOP, OURS, MMENGINE = "plain loop", "fasttrain", "mmengine"
NUM_RESAMPLES = 500
KEYS = (1, 20)
HISTORIES = (2_000, 40_000)
SGD = {"type": "SGD", "lr": 0.01}
HOW_TO_READ = """\
Each sample is one run: the median over its log intervals of ten iterations, each with one log line
in it ({clock}; torch uses one thread). Medians and spreads are over rounds; the overhead is paired
by round, and the spread of its ratio comes from resampling the rounds. The history is pre-filled:
at the end of the warm-up every logged series is set to that many entries, then the iterations are
timed, so that mmengine's cost per entry shows without hours of running. Nobody steps a schedule of
the learning rate; both runners log the rate. `fasttrain` uses torch's
SGD (`fused=False`) and so does the same arithmetic as the plain loop; `fused step` is what an
unchanged config gets."""
Contestants = dict[str, Callable[[Job, Path], Outcome]]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def contestants(*, peers: bool) -> Contestants:
    """All contestants that are installed, the plain loop first."""
    found: Contestants = {LOOP: plain_loop, OURS: runner("fasttrain", {**SGD, "fused": False})}
    found["fasttrain, fused step"] = runner("fasttrain", SGD)
    if installed("mmengine"):
        found[MMENGINE] = runner("mmengine", SGD)
    for name, contestant in (("ignite", ignite), ("accelerate", accelerate)):
        if peers and installed(name):
            found[name] = contestant
    if peers and installed("lightning"):
        found["lightning"] = lightning
    return found


def check_equal(found: Contestants, num_keys: int, folder: Path) -> None:
    """Every contestant ends with the plain loop's weights, but for roundings of the fused step and
    of the sum of many losses, which is in another order.

    Raises:
        AssertionError: one does not; names it.
    """
    job = Job(num_keys, num_iters=100, history=0)
    expected = found[LOOP](job, folder).weights
    for name, contestant in found.items():
        for key, value in contestant(job, folder).weights.items():
            exact = "fused step" not in name and (num_keys == 1 or "fasttrain" not in name)
            tolerance = 0.0 if exact else 1e-5
            message = f"{name}: {key} differs from the plain loop's"
            torch.testing.assert_close(
                value, expected[key], rtol=tolerance, atol=tolerance, msg=message
            )


def measure(found: Contestants, job: Job, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Seconds per iteration, one sample per round; the order rotates."""
    names = list(found)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            outcome = found[name](job, folder)
            if turn >= 0:
                times[name].append(outcome.seconds_per_iter)
    return times


def overhead(times: dict[str, list[float]], name: str) -> list[float]:
    return [a - b for a, b in zip(times[name], times[LOOP], strict=True)]


def overhead_ratio(times: dict[str, list[float]], rival: str) -> Spread | None:
    """Median overhead of the rival over ours, with the spread that resampled rounds give.

    None when ours is lost in the noise: not above zero in some resample.
    """
    pairs = list(zip(overhead(times, rival), overhead(times, OURS), strict=True))
    chance = random.Random(0)
    ratios = []
    for resample in range(1 + NUM_RESAMPLES):
        chosen = pairs if resample == 0 else chance.choices(pairs, k=len(pairs))
        theirs, ours = (statistics.median(column) for column in zip(*chosen, strict=True))
        if ours <= 0:
            return None
        ratios.append(theirs / ours)
    spread = Spread.of(ratios[1:])
    return Spread(ratios[0], spread.low, spread.high)


def report_job(report: Report, job: Job, times: dict[str, list[float]]) -> float | None:
    """Print one table; returns mmengine's overhead over ours, None when it cannot be told."""
    rows: list[list[object]] = [[LOOP, Spread.of(times[LOOP]).seconds(), "", ""]]
    factor = None
    for name in list(times)[1:]:
        over_ours = overhead_ratio(times, name)
        cells = [Spread.of(sample).seconds() for sample in (times[name], overhead(times, name))]
        rows.append([name, *cells, "" if name == OURS else over_ours or "lost in the noise"])
        if name == MMENGINE and over_ours is not None:
            factor = over_ours.median
    report.table(
        f"{job.num_keys} loss key{'s' if job.num_keys > 1 else ''}, history of {job.history:,}",
        ["", "per iteration (p10 .. p90)", "over the plain loop", f"over {OURS}'s overhead"],
        rows,
    )
    return factor


def main() -> int:
    args = parse_args(
        __doc__,
        options=lambda parser: parser.add_argument(
            "--cpu-time", action="store_true", help="measure CPU time: for a busy machine"
        ),
    )
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("loop", "Runner overhead per iteration", args)
    report.text(HOW_TO_READ.format(clock="CPU time" if args.cpu_time else "wall time"))
    rounds, num_iters = (3, 200) if args.quick else (11, 500)
    reached = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for num_keys in KEYS:
            for history in HISTORIES:
                # The other frameworks keep no history; one setting shows them.
                found = contestants(peers=history == HISTORIES[0])
                if history == HISTORIES[0]:
                    check_equal(found, num_keys, folder)
                job = Job(num_keys, num_iters, history, clock)
                factor = report_job(report, job, measure(found, job, rounds, folder))
                if factor is not None and history == HISTORIES[-1]:
                    reached[num_keys] = factor
    for num_keys, factor in reached.items():
        report.text(
            f"With {num_keys} loss key(s) and a long history, mmengine's overhead is {factor:.1f} "
            f"times fasttrain's; the floor is {FLOORS[num_keys]:.0f}."
        )
    report.finish()
    return 0 if all(factor >= FLOORS[num_keys] for num_keys, factor in reached.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
