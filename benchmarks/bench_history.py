"""What logging a scalar costs, whatever came before it.

One process fills histories of fasttrain and of mmengine with the same numbers, checks that they
show the same, and times appending and reading in turn and round by round.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from common import Report, Spread, interleave, parse_args, ratio

from fasttrain import logging as ours_logging
from fasttrain.core.store import ScalarStore

OURS, RIVAL, STORE = "fasttrain", "mmengine", "fasttrain, core"
LENGTHS = (100, 100_000, 999_999)
NUM_KEYS = 20
Faces = dict[str, Any]


def faces() -> Faces:
    """The logging package of each contestant that is installed."""
    found: Faces = {OURS: ours_logging}
    if importlib.util.find_spec("mmengine"):
        import mmengine.logging

        found[RIVAL] = mmengine.logging
    return found


def check_equal(found: Faces) -> None:
    """All contestants show the same for the same updates.

    Raises:
        AssertionError: they do not.
    """
    rng = np.random.default_rng(0)
    values = rng.standard_normal(5000) * 10.0 ** rng.uniform(-6, 6, 5000)
    counts = rng.integers(1, 9, 5000)
    shown: dict[str, list[Any]] = {}
    for name, logging in found.items():
        buffer = logging.HistoryBuffer(values[:1000], counts[:1000], max_length=3000)
        for value, count in zip(values[1000:].tolist(), counts[1000:].tolist(), strict=True):
            buffer.update(value, count)
        hub = logging.MessageHub(f"check {name}")
        for value in values[:100]:
            hub.update_scalars({"a": torch.tensor(value), "b": {"value": value, "count": 3}})
        shown[name] = [buffer.mean(w) for w in (None, 1, 7, 8, 100, 129, 2999, 9000)]
        shown[name] += [buffer.min(50), buffer.max(50), buffer.current(), *buffer.data]
        shown[name] += [hub.get_scalar("a").mean(50), hub.get_scalar("b").mean(50)]
    for name, results in shown.items():
        for mine, theirs in zip(shown[OURS], results, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


def filled(logging: Any, length: int) -> Any:
    return logging.HistoryBuffer(np.linspace(0, 1, length), np.ones(length))


def time_updates(found: Faces, report: Report, rounds: int) -> dict[int, dict[str, list[float]]]:
    """`HistoryBuffer.update(float)` behind histories of several lengths, all in turn."""
    sizes: dict[str, int] = {}
    batches: dict[str, Callable[[], None]] = {}
    for name, logging in found.items():
        for length in LENGTHS:
            # A rival's batches are short: its time is long, and a short history shall stay short.
            size = 5_000 if name == OURS else max(3, 40 - length // 20_000)
            sizes[f"{name} {length}"] = size
            batches[f"{name} {length}"] = partial(repeat, filled(logging, length).update, size)
    raw = interleave(batches, rounds=rounds)
    times = {
        length: {
            name: [second / sizes[f"{name} {length}"] for second in raw[f"{name} {length}"]]
            for name in found
        }
        for length in LENGTHS
    }
    for length, sample in times.items():
        report.times(f"update(float) after {length:,} entries", sample, ours=OURS)
    return times


def repeat(update: Callable[[float], None], size: int) -> None:
    for _ in range(size):
        update(0.5)


def time_hub(found: Faces, report: Report, rounds: int) -> dict[str, dict[str, list[float]]]:
    """20 scalars in one call, as numbers and as tensors of the host."""
    numbers = {f"loss_{index}": 0.5 * index for index in range(NUM_KEYS)}
    given: dict[str, dict[str, Any]] = {
        "floats": numbers,
        "host tensors": {key: torch.tensor(value) for key, value in numbers.items()},
    }
    times: dict[str, dict[str, list[float]]] = {}
    for kind, scalars in given.items():
        calls: dict[str, Callable[[], Any]] = {}
        for name, logging in found.items():
            hub = logging.MessageHub(f"{kind} {name}")
            calls[name] = partial(hub.update_scalars, scalars)
        store = ScalarStore()
        calls[STORE] = partial(store.put_many, scalars, "train/")
        times[kind] = interleave(calls, rounds=rounds, calls=200)
        report.times(f"update_scalars of {NUM_KEYS} {kind}", times[kind], ours=OURS)
    return times


def time_reads(found: Faces, report: Report, rounds: int) -> None:
    """The mean of a log window, and of everything."""
    for window, calls in ((10, 200), (None, 5)):
        buffers = {name: filled(logging, 100_000) for name, logging in found.items()}
        times = interleave(
            {name: partial(buffer.mean, window) for name, buffer in buffers.items()},
            rounds=rounds,
            calls=calls,
        )
        report.times(f"mean({window}) of 100,000 entries", times, ours=OURS)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def measure_memory() -> float:
    """MB that a series of a million entries keeps resident, filled one by one."""
    buffer = ours_logging.HistoryBuffer()
    before = resident_bytes()
    for _ in range(1_000_000):
        buffer.update(0.5)
    return (resident_bytes() - before) / 1e6


def main() -> None:
    args = parse_args(__doc__)
    rounds = 5 if args.quick else 30
    found = faces()
    check_equal(found)
    report = Report("history", "Logging a scalar", args)
    report.text(
        "Times are seconds per call, median with 10th and 90th percentile over the rounds. "
        "Values, windows and means were checked to be equal, bit for bit, before."
    )
    updates = time_updates(found, report, rounds)
    hub = time_hub(found, report, rounds)
    time_reads(found, report, rounds)
    report.table("Goals", ["", "goal", "measured", "met"], goals(updates, hub, measure_memory()))
    report.finish()


def goals(
    updates: dict[int, dict[str, list[float]]],
    hub: dict[str, dict[str, list[float]]],
    megabytes: float,
) -> list[list[Any]]:
    """What must hold, and whether it does."""
    ours = {length: Spread.of(sample[OURS]).median for length, sample in updates.items()}
    rows: list[list[Any]] = []

    def at_most(what: str, limit: float, measured: float, unit: str) -> None:
        rows.append([what, f"<= {limit:g} {unit}", f"{measured:.3g} {unit}", measured <= limit])

    def at_least(what: str, limit: float, measured: float) -> None:
        rows.append([what, f">= {limit:g}x", f"{measured:,.0f}x", measured >= limit])

    at_most("update(float), slowest length", 0.4, max(ours.values()) * 1e6, "us")
    at_most("slowest over fastest length", 1.5, max(ours.values()) / min(ours.values()), "x")
    if RIVAL in updates[LENGTHS[0]]:
        for length, factor in ((100_000, 500), (999_999, 3000)):
            faster = ratio(updates[length], RIVAL, OURS).median
            at_least(f"mmengine's update over ours at {length:,}", factor, faster)
    at_most(f"{NUM_KEYS} floats", 5, Spread.of(hub["floats"][OURS]).median * 1e6, "us")
    at_most("a series of 1,000,000 entries", 16.1, megabytes, "MB")
    return rows


if __name__ == "__main__":
    main()
