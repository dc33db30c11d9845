"""The optimizer step of mixed-precision training: unscale, check, norm, clip, update, zero.

Each row's contestants start from the same weights and gradients and are checked to agree before
anything is timed; gradients are written anew, outside the clock, before every step.

    python benchmarks/bench_step.py            all rows
    python benchmarks/bench_step.py --quick    few rounds
    python benchmarks/bench_step.py --only small --report
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from common import Report, Spread, parse_args, ratio
from torch import Tensor, nn

from fasttrain import native
from fasttrain.core import fused

SCALE = 65536.0
MAX_NORM = 1.0
CLIP = SimpleNamespace(type="norm", max_norm=MAX_NORM, norm_type=2.0, error_if_nonfinite=False)


def resnet50_shapes() -> list[tuple[int, ...]]:
    """The shapes of ResNet-50's parameters, 25.6 million elements."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for shape in ((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)):
                shapes += [shape, shape[:1], shape[:1]]
            if block == 0:
                shapes += [(4 * width, channels, 1, 1), (4 * width,), (4 * width,)]
            channels = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def small_shapes() -> list[tuple[int, ...]]:
    """400 tensors of 1 to 4,096 elements."""
    generator = torch.Generator().manual_seed(1)
    return [(int(torch.randint(1, 4097, (), generator=generator)),) for _ in range(400)]


class Contestant:
    """One way to step: parameters, their gradients, and `step`, which is what is timed."""

    def __init__(self, shapes: list[tuple[int, ...]], scale: float, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        self.params = [
            nn.Parameter((torch.randn(s, generator=generator) * 0.05).to(dtype)) for s in shapes
        ]
        self.source = [(torch.randn(s, generator=generator) * scale).to(dtype) for s in shapes]
        self.grads = [torch.empty_like(g) for g in self.source]
        self.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
        self.scaler.scale(torch.ones(()))

    def prepare(self) -> None:
        """Write the gradients, as a backward pass would."""
        torch._foreach_copy_(self.grads, self.source)
        for param, grad in zip(self.params, self.grads, strict=True):
            param.grad = grad

    def step(self) -> None:
        raise NotImplementedError

    def weights(self) -> list[Tensor]:
        return [p.detach().float() for p in self.params]


class Torch(Contestant):
    """What a user writes with torch alone."""

    def __init__(self, shapes: Any, row: Row, **choice: bool) -> None:
        super().__init__(shapes, SCALE if row.scaled else 1.0, row.dtype)
        self.row = row
        self.masters = self.params
        if row.dtype != torch.float32:
            self.masters = [nn.Parameter(p.detach().float()) for p in self.params]
        self.optimizer = getattr(torch.optim, row.optimizer)(self.masters, **row.kwargs, **choice)

    def step(self) -> None:
        if self.masters is not self.params:
            for master, param in zip(self.masters, self.params, strict=True):
                assert param.grad is not None
                master.grad = param.grad.float()
        if self.row.scaled:
            self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.masters, MAX_NORM)
        if self.row.scaled:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.masters is not self.params:
            with torch.no_grad():
                torch._foreach_copy_([*self.params], [*self.masters])
            self.optimizer.zero_grad()
        for param in self.params:
            if self.row.zero:
                continue
            param.grad = None
        if self.row.zero:
            torch._foreach_zero_([p.grad for p in self.params if p.grad is not None])


class Ours(Contestant):
    """The same on the fused step."""

    def __init__(self, shapes: Any, row: Row, overlap: bool = False) -> None:
        super().__init__(shapes, SCALE if row.scaled else 1.0, row.dtype)
        self.row = row
        low = row.dtype != torch.float32
        self.optimizer = getattr(fused, row.optimizer)(
            self.params, **row.kwargs, master_weights=low
        )
        self.overlap = self.optimizer.enable_overlap_norm() if overlap else None

    def prepare(self) -> None:
        super().prepare()
        if self.overlap is not None:
            for param in self.params:
                self.overlap._take(param)

    def step(self) -> None:
        self.optimizer.fused_step(
            scaler=self.scaler if self.row.scaled else None, clip=CLIP, zero=self.row.zero
        )
        if self.row.scaled:
            self.scaler.update()
        if not self.row.zero:
            self.optimizer.zero_grad()


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        bytes_per_param: what our step must move, for the share of the stream's bandwidth.
    """

    name: str
    title: str
    shapes: Callable[[], list[tuple[int, ...]]]
    bytes_per_param: float
    optimizer: str = "AdamW"
    kwargs: Any = None
    scaled: bool = True
    zero: bool = False
    overlap: bool = False
    dtype: torch.dtype = torch.float32
    peers: tuple[str, ...] = ("fused", "foreach", "plain")


ADAMW = {"lr": 1e-3}
SGD = {"lr": 1e-3, "momentum": 0.9}
ROWS = (
    Row("adamw", "ResNet-50, AdamW, scale + clip", resnet50_shapes, 32, kwargs=ADAMW),
    Row(
        "zero", "the same, gradients zeroed in place", resnet50_shapes, 36, kwargs=ADAMW, zero=True
    ),
    Row(
        "overlap",
        "the same, norm taken in backward (outside the clock)",
        resnet50_shapes,
        28,
        kwargs=ADAMW,
        overlap=True,
        peers=("fused",),
    ),
    Row("sgd", "ResNet-50, SGD with momentum, clip", resnet50_shapes, 24, "SGD", SGD, scaled=False),
    Row(
        "bf16",
        "ResNet-50, AdamW, bf16 with fp32 master, scale + clip",
        resnet50_shapes,
        30,
        kwargs=ADAMW,
        dtype=torch.bfloat16,
        peers=("fused", "foreach"),
    ),
    Row("small", "400 tensors of 1 to 4,096, AdamW, scale + clip", small_shapes, 32, kwargs=ADAMW),
    Row(
        "ten",
        "10 tensors of 16, AdamW, scale + clip (host time)",
        lambda: [(16,)] * 10,
        32,
        kwargs=ADAMW,
    ),
)


def make_contestants(row: Row) -> dict[str, Contestant]:
    """Ours and torch's ways, agreeing after three steps."""
    shapes = row.shapes()
    choices = {"fused": {"fused": True}, "foreach": {"foreach": True}, "plain": {"foreach": False}}
    sides: dict[str, Contestant] = {"ours": Ours(shapes, row, row.overlap)}
    for peer in row.peers:
        sides[f"torch {peer}"] = Torch(shapes, row, **choices[peer])
    for side in sides.values():
        for _ in range(3):
            side.prepare()
            side.step()
    expected = sides["ours"].weights()
    tolerance = 1e-5 if row.dtype == torch.float32 else 1e-2
    for name, side in sides.items():
        for left, right in zip(expected, side.weights(), strict=True):
            torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance, msg=name)
    return sides


def time_rounds(
    sides: dict[str, Contestant], stream: Callable[[], Any], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each contestant's step and of the stream, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in [*sides, "stream"]}
    names = list(sides)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                sides[name].prepare()
                start = time.perf_counter()
                sides[name].step()
                times[name].append(time.perf_counter() - start)
            start = time.perf_counter()
            stream()
            times["stream"].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return times


def report_row(report: Report, row: Row, rounds: int) -> None:
    """Check, time and print one row."""
    sides = make_contestants(row)
    num_params = sum(p.numel() for p in sides["ours"].params)
    buffer = torch.zeros(max(4 * num_params, 1024))
    buffer.add_(1.0)
    times = time_rounds(sides, lambda: buffer.add_(1.0), rounds)
    stream = times.pop("stream")
    report.times(row.title, times, ours="ours")
    moved = row.bytes_per_param * num_params
    share = Spread.of(
        [
            (moved / ours_s) / (8.0 * buffer.numel() / stream_s)
            for ours_s, stream_s in zip(times["ours"], stream, strict=True)
        ]
    )
    rival = max((ratio(times, name, "ours") for name in times if name != "ours"), key=_median)
    best = min((ratio(times, name, "ours") for name in times if name != "ours"), key=_median)
    ours_rate = moved / Spread.of(times["ours"]).median / 1e9
    stream_rate = 8.0 * buffer.numel() / Spread.of(stream).median / 1e9
    report.text(
        f"{num_params / 1e6:.2f} million parameters, {row.bytes_per_param:g} bytes each: ours "
        f"moves {ours_rate:.1f} GB/s, {share} of a read-modify-write stream's {stream_rate:.1f}. "
        f"Over torch's best: {best}; over its slowest: {rival}."
    )


def _median(spread: Spread) -> float:
    return spread.median


def main() -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", nargs="*", choices=[r.name for r in ROWS], help="some rows")

    args = parse_args(__doc__, options=options)
    report = Report("step", "The fused optimizer step", args)
    info = native.info()
    report.text(f"CPU path {info.get('cpu_path')}, thread team {info.get('team')}.")
    for row in ROWS:
        if args.only and row.name not in args.only:
            continue
        large = row.shapes is resnet50_shapes
        report_row(report, row, (5 if args.quick else 20) if large else (20 if args.quick else 200))
    report.finish()


if __name__ == "__main__":
    main()
