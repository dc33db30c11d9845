"""The contestants of `bench_loop.py`: one training job, run by a plain loop and by each framework.

Each contestant trains the same model from the same weights on the same batches, calls it as a
module once per iteration, hands out its final weights, and tells the time between two iterations of
its own, so that set-up is left out.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

WARMUP_ITERS = 50
LOG_INTERVAL = 10
NUM_FEATURES = 16
BATCH_SIZE = 8
LEARNING_RATE = 0.01
_serial = itertools.count()


@dataclass(frozen=True)
class Job:
    """What every contestant has to do.

    Args:
        num_keys: losses that the model returns (and that are logged) per iteration.
        num_iters: iterations that are timed, after `WARMUP_ITERS` others.
        history: entries that each logged series holds before the timed iterations.
        clock: tells seconds; `time.process_time` looks past other processes on a busy machine.
    """

    num_keys: int
    num_iters: int
    history: int
    clock: Callable[[], float] = time.perf_counter

    @property
    def total_iters(self) -> int:
        return WARMUP_ITERS + self.num_iters


@dataclass(frozen=True)
class Outcome:
    """Seconds per timed iteration and the weights at the end."""

    seconds_per_iter: float
    weights: dict[str, Tensor]


class Net(nn.Module):
    """A small network whose loss comes in `num_keys` parts."""

    def __init__(self, num_keys: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(NUM_FEATURES, NUM_FEATURES), nn.ReLU(), nn.Linear(NUM_FEATURES, 1)
        )
        self.num_keys = num_keys
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)

    def forward(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        error = (self.body(inputs).squeeze(1) - targets).square().mean()
        return {f"loss_{i}": error / (i + 1) for i in range(self.num_keys)}


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum as one writes it by hand."""
    first, *others = losses.values()
    return sum(others, first)


def batches(job: Job) -> DataLoader[Any]:
    """Ready-made batches, handed out as they are: loading costs little and the same for all.

    One pass lasts the whole run, for mmengine sleeps two seconds before each further pass.
    """
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, BATCH_SIZE, NUM_FEATURES, generator=generator)
    targets = inputs.sum(2)
    items = [{"inputs": x, "targets": y} for x, y in zip(inputs, targets, strict=True)]
    items = [items[i % len(items)] for i in range(job.total_iters)]
    return DataLoader(items, batch_size=1, collate_fn=_only_item)  # type: ignore[arg-type]


def _only_item(items: list[Any]) -> Any:
    return items[0]


class Clock:
    """Told of the end of each iteration, it times log intervals, each with one log line in it.

    The median over the intervals leaves out those in which the machine did something else.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.num_done = 0
        self.marks: list[float] = []

    def tick(self) -> None:
        self.num_done += 1
        if self.num_done >= WARMUP_ITERS and self.num_done % LOG_INTERVAL == 0:
            self.marks.append(self.job.clock())

    def outcome(self, model: nn.Module) -> Outcome:
        assert self.num_done == self.job.total_iters, f"{self.num_done} iterations ran"
        weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        intervals = [end - start for start, end in itertools.pairwise(self.marks)]
        return Outcome(statistics.median(intervals) / LOG_INTERVAL, weights)


@contextmanager
def silence() -> Iterator[None]:
    """Send both output streams to nowhere; log lines are formatted and written all the same."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)


def plain_loop(job: Job, folder: Path) -> Outcome:
    """The loop that a user writes by hand: forward, sum, zero, backward, step, and no logging."""
    model, clock = Net(job.num_keys), Clock(job)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for batch in batches(job):
        loss = total(model(**batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.tick()
    return clock.outcome(model)


def runner(package: str, optimizer: dict[str, Any]) -> Callable[[Job, Path], Outcome]:
    """A contestant that runs `<package>.runner.Runner` with its default hooks.

    Args:
        package: 'fasttrain' or 'mmengine'; the very same code drives both.
        optimizer: config of the optimizer.
    """
    base_model = importlib.import_module(f"{package}.model").BaseModel
    hook_class = importlib.import_module(f"{package}.hooks").Hook
    runner_class = importlib.import_module(f"{package}.runner").Runner
    buffer_class = importlib.import_module(f"{package}.logging").HistoryBuffer

    class Model(base_model):  # type: ignore[misc, valid-type]
        def __init__(self, num_keys: int) -> None:
            super().__init__()
            self.net = Net(num_keys)

        def forward(self, inputs: Tensor, targets: Tensor, mode: str = "loss") -> Any:
            return self.net.forward(inputs, targets)  # the runner called one module already

    class ClockHook(hook_class):  # type: ignore[misc, valid-type]
        """Fills the history at the last warm-up iteration, and marks the ends of iterations."""

        priority = "LOWEST"

        def __init__(self, job: Job) -> None:
            self.job, self.clock = job, Clock(job)

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            if self.clock.num_done == WARMUP_ITERS - 1:
                prefill(runner.message_hub.log_scalars, self.job.history - WARMUP_ITERS)
            self.clock.tick()

    def prefill(scalars: dict[str, Any], num_more: int) -> None:
        for name, buffer in list(scalars.items()):
            values, counts = buffer.data
            filler = [float(values[-1])] * num_more, [float(counts[-1])] * num_more
            if num_more > 0:
                scalars[name] = buffer_class(
                    [*filler[0], *values.tolist()], [*filler[1], *counts.tolist()]
                )

    def run(job: Job, folder: Path) -> Outcome:
        hook = ClockHook(job)
        with silence():
            job_runner = runner_class(
                model=Model(job.num_keys),
                work_dir=str(folder / package),
                train_dataloader=batches(job),
                train_cfg={"by_epoch": False, "max_iters": job.total_iters},
                optim_wrapper={"optimizer": optimizer},
                default_hooks={
                    "logger": {"type": "LoggerHook", "interval": LOG_INTERVAL},
                    "checkpoint": {"type": "CheckpointHook", "interval": -1},
                },
                custom_hooks=[hook],
                randomness={"seed": 0},
                experiment_name=f"{package}_{next(_serial)}",
            )
            job_runner.train()
        return hook.clock.outcome(job_runner.model.net)

    return run


def ignite(job: Job, folder: Path) -> Outcome:
    """pytorch-ignite with a running average of each loss and a log line per interval."""
    from ignite.engine import Engine, Events
    from ignite.metrics import RunningAverage

    model, clock = Net(job.num_keys), Clock(job)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    log = logging.getLogger("bench.ignite")

    def step(engine: Any, batch: Any) -> dict[str, float]:
        losses = model(**batch)
        loss = total(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    trainer = Engine(step)
    for i in range(job.num_keys):
        name = f"loss_{i}"
        average = RunningAverage(output_transform=lambda output, name=name: output[name])
        average.attach(trainer, name)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(every=LOG_INTERVAL),
        lambda engine: log.info("%s", engine.state.metrics),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: clock.tick())
    trainer.run(batches(job), max_epochs=1)
    return clock.outcome(model)


def accelerate(job: Job, folder: Path) -> Outcome:
    """Hugging Face Accelerate around the plain loop, each loss logged per interval."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    net, clock = Net(job.num_keys), Clock(job)
    model, optimizer, loader = accelerator.prepare(
        net, torch.optim.SGD(net.parameters(), lr=LEARNING_RATE), batches(job)
    )
    for index, batch in enumerate(loader):
        losses = model(**batch)
        loss = total(losses)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        if index % LOG_INTERVAL == 0:
            accelerator.log({name: value.item() for name, value in losses.items()}, step=index)
        clock.tick()
    return clock.outcome(net)


def lightning(job: Job, folder: Path) -> Outcome:
    """Lightning's Trainer with `self.log` of each loss and its CSV logger."""
    import lightning as pl
    from lightning.pytorch.loggers import CSVLogger

    net, clock = Net(job.num_keys), Clock(job)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            losses = self.net(**batch)
            self.log_dict(losses)
            return total(losses)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=LEARNING_RATE)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            clock.tick()

    with silence():
        trainer = pl.Trainer(
            max_steps=job.total_iters, accelerator="cpu", logger=CSVLogger(str(folder)),
            enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
            log_every_n_steps=LOG_INTERVAL,
        )  # fmt: skip
        trainer.fit(Module(), batches(job))
    return clock.outcome(net)
