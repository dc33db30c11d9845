"""What the engine's SimpleTrainer adds to a hand-written loop, and what its writers cost.

One process runs a plain PyTorch loop, fasttrain's SimpleTrainer with the default hooks (timer,
schedule, writers to console and JSON), and a plain re-statement of the usual way to log (`.item()`
per key into deques, medians at each write) on the same model, batches and weights, in turn and
round by round. The overhead of a contestant is its time per iteration less that of a plain loop in
the same round; all step the same schedule. There are two plain loops: one says
`sum(losses.values())`, as hand-written loops and the usual way do, one stacks the losses to sum
them up, which is cheaper with many. SimpleTrainer gets torch's SGD, as the plain loops, and
fasttrain's, which is what a config gets.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import Report, Spread, interleave, parse_args
from loop_contestants import Clock, Job, Net, Outcome, batches
from torch import nn

from fasttrain.core.fused import SGD
from fasttrain.engine import (
    CommonMetricPrinter,
    EventStorage,
    HookBase,
    IterationTimer,
    JSONWriter,
    LRScheduler,
    PeriodicWriter,
    SimpleTrainer,
)

LIMIT_S = 40e-6  # overhead per iteration with 20 loss keys
LOOP, STACK_LOOP, OURS, USUAL = "plain loop", "plain loop, stack()", "SimpleTrainer", "usual way"
FUSED = "SimpleTrainer, fused SGD"
KEYS = (1, 20)
PERIOD = 20
Contestant = Callable[[Job, Path], Outcome]


class Named(nn.Module):
    """The network as the engine calls it: batch in, losses out."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.net.forward(**batch)  # this one was called as a module already


class Ticks(HookBase):
    """Marks the ends of iterations."""

    def __init__(self, clock: Clock) -> None:
        self.after_step = clock.tick  # type: ignore[method-assign]


def make(
    job: Job, optimizer_class: type[torch.optim.Optimizer] = torch.optim.SGD
) -> tuple[Net, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    net = Net(job.num_keys)
    optimizer = optimizer_class(net.parameters(), lr=0.01)  # type: ignore[call-arg]
    return net, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def stacking_loop(job: Job, folder: Path) -> Outcome:
    """The plain loop with its losses stacked."""
    (net, optimizer, scheduler), clock = make(job), Clock(job)
    model = Named(net)
    for batch in batches(job):
        loss = torch.stack(list(model(batch).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        clock.tick()
    return clock.outcome(net)


def plain_loop(job: Job, folder: Path) -> Outcome:
    """Forward, sum, backward, step, zero, schedule: no logging."""
    (net, optimizer, scheduler), clock = make(job), Clock(job)
    model = Named(net)
    for batch in batches(job):
        sum(model(batch).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        clock.tick()
    return clock.outcome(net)


def simple_trainer(
    job: Job, folder: Path, optimizer_class: type[torch.optim.Optimizer] = torch.optim.SGD
) -> Outcome:
    """SimpleTrainer with its default hooks."""
    (net, optimizer, scheduler), clock = make(job, optimizer_class), Clock(job)
    trainer = SimpleTrainer(Named(net), batches(job), optimizer)
    writers = [CommonMetricPrinter(job.total_iters), JSONWriter(folder / "ours.json")]
    trainer.register_hooks(
        [
            IterationTimer(),
            LRScheduler(optimizer, scheduler),
            PeriodicWriter(writers, PERIOD),
            Ticks(clock),
        ]
    )
    trainer.train(0, job.total_iters)
    return clock.outcome(net)


def usual_way(job: Job, folder: Path) -> Outcome:
    """The usual way, restated in plain Python: every value is read at once and kept in deques."""
    (net, optimizer, scheduler), clock = make(job), Clock(job)
    model = Named(net)
    history: dict[str, deque[tuple[float, int]]] = {}
    log = logging.getLogger("fasttrain.bench")
    with open(folder / "usual.json", "a", encoding="utf-8") as file:

        def put(name: str, value: float, step: int) -> None:
            history.setdefault(name, deque(maxlen=1_000_000)).append((value, step))

        def median(name: str) -> float:
            values = history[name]
            return statistics.median(values[-i][0] for i in range(1, min(20, len(values)) + 1))

        for step, batch in enumerate(batches(job)):
            start = time.perf_counter()
            losses = model(batch)
            sum(losses.values()).backward()  # type: ignore[union-attr]
            numbers = {name: value.detach().cpu().item() for name, value in losses.items()}
            for name, number in numbers.items():
                put(name, number, step)
            put("total_loss", sum(numbers.values()), step)
            put("data_time", 0.0, step)
            optimizer.step()
            optimizer.zero_grad()
            put("time", time.perf_counter() - start, step)
            put("lr", optimizer.param_groups[0]["lr"], step)
            scheduler.step()
            if (step + 1) % PERIOD == 0:
                medians = {name: median(name) for name in history}
                log.info("  ".join(f"{name}: {median(name):.4g}" for name in history))
                file.write(json.dumps({"iteration": step, **medians}, sort_keys=True) + "\n")
                file.flush()
            clock.tick()
    return clock.outcome(net)


CONTESTANTS: dict[str, Contestant] = {
    LOOP: plain_loop,
    STACK_LOOP: stacking_loop,
    OURS: simple_trainer,
    FUSED: partial(simple_trainer, optimizer_class=SGD),
    USUAL: usual_way,
}


def check_equal(num_keys: int, folder: Path) -> None:
    """All end with the same weights, SimpleTrainer to the last bit with those of stacked losses."""
    job = Job(num_keys, num_iters=100, history=0)
    expected = stacking_loop(job, folder).weights
    for name, tolerance in ((OURS, 0.0), (FUSED, 1e-5), (LOOP, 1e-5), (USUAL, 1e-5)):
        for key, value in CONTESTANTS[name](job, folder).weights.items():
            key = key.removeprefix("net.")
            torch.testing.assert_close(
                value, expected[key], rtol=tolerance, atol=tolerance, msg=f"{name}: {key} differs"
            )


def report_overhead(report: Report, num_keys: int, rounds: int, job: Job, folder: Path) -> float:
    """Print one table; returns the median overhead of ours over the plain loop, in seconds."""
    names = list(CONTESTANTS)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        for name in names[turn % 5 :] + names[: turn % 5]:
            outcome = CONTESTANTS[name](job, folder)
            if turn >= 0:
                times[name].append(outcome.seconds_per_iter)
    added = {
        (name, loop): Spread.of([a - b for a, b in zip(times[name], times[loop], strict=True)])
        for name in names
        for loop in (LOOP, STACK_LOOP)
    }
    rows: list[list[object]] = [
        [
            name,
            Spread.of(times[name]).seconds(),
            *("" if name == loop else added[name, loop].seconds() for loop in (LOOP, STACK_LOOP)),
        ]
        for name in names
    ]
    report.table(
        f"{num_keys} loss key{'s' if num_keys > 1 else ''}",
        ["", "per iteration (p10 .. p90)", "over the plain loop", "over the one that stacks"],
        rows,
    )
    return added[OURS, LOOP].median


def report_writers(report: Report, rounds: int, folder: Path) -> None:
    """The cost of one write of 24 scalars, at two lengths of history."""
    for length in (1_000, 100_000):
        storage = EventStorage()
        names = [f"loss_{i}" for i in range(20)] + ["total_loss", "data_time", "time"]
        for storage.iter in range(length):
            storage.put_all(dict.fromkeys(names, 0.5))
            storage.put_scalar("lr", 0.1, smoothing_hint=False)
        printer, writer = CommonMetricPrinter(10**9), JSONWriter(folder / "writer.json")

        def step(writer: Any, storage: EventStorage = storage, names: list[str] = names) -> None:
            storage.step()
            storage.put_all(dict.fromkeys(names, 0.5))
            storage.put_scalar("lr", 0.1, smoothing_hint=False)
            if writer is not None:
                writer.write()

        with storage:
            found = interleave(
                {
                    "one put of 24 scalars": lambda step=step: step(None),
                    "put and CommonMetricPrinter": lambda step=step, p=printer: step(p),
                    "put and JSONWriter": lambda step=step, w=writer: step(w),
                },
                rounds=rounds,
                calls=20,
            )
            writer.close()
        report.times(f"A write, {length:,} entries per scalar", found, ours="one put of 24 scalars")


def main() -> int:
    args = parse_args(__doc__)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    package = logging.getLogger("fasttrain")
    package.setLevel(logging.INFO)
    package.propagate = False
    report = Report("engine", "SimpleTrainer's overhead per iteration", args)
    rounds, num_iters = (5, 400) if args.quick else (15, 1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        handler = logging.FileHandler(folder / "log.txt")
        package.addHandler(handler)
        for num_keys in KEYS:
            check_equal(num_keys, folder)
            job = Job(num_keys, num_iters, history=0)
            overhead_s = report_overhead(report, num_keys, rounds, job, folder)
        report_writers(report, rounds, folder)
        handler.close()
    report.text(
        f"Overhead with {KEYS[-1]} keys: {overhead_s * 1e6:.1f} us; the limit is "
        f"{LIMIT_S * 1e6:.0f} us."
    )
    report.finish()
    return 0 if overhead_s <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
