"""The optimizer step of mixed-precision training: unscale, check, norm, clip, update, zero.

Each row's contestants start from the same weights and gradients and are checked to agree before
anything is timed; gradients are written anew, outside the clock, before every step.

    python benchmarks/bench_step.py            all rows; on a GPU where there is one
    python benchmarks/bench_step.py --quick    few rounds
    python benchmarks/bench_step.py --cpu      the CPU's rows, also where there is a GPU
    python benchmarks/bench_step.py --only small --report
    python benchmarks/bench_step.py --only adamw --compiled    beside torch.compile, minutes more
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from common import Report, Spread, parse_args, ratio
from step_contestants import Row, resnet50_shapes, small_shapes, time_rounds
from step_gpu import GPU_ROWS, report_gpu_row
from step_peers import contestants_of

from fasttrain import native

ADAMW = {"lr": 1e-3}
SGD = {"lr": 1e-3, "momentum": 0.9}
ROWS = (
    Row("adamw", "ResNet-50, AdamW, scale + clip", resnet50_shapes, 32, kwargs=ADAMW),
    Row(
        "zero",
        "the same, gradients zeroed in place",
        resnet50_shapes,
        36,
        kwargs=ADAMW,
        zero=True,
        read_bytes=4,
    ),
    Row(
        "overlap",
        "the same, norm taken in backward (outside the clock)",
        resnet50_shapes,
        28,
        kwargs=ADAMW,
        overlap=True,
        peers=("fused",),
        read_bytes=4,
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
        read_bytes=4,
    ),
    Row("small", "400 tensors of 1 to 4,096, AdamW, scale + clip", small_shapes, 32, kwargs=ADAMW),
    Row(
        "ten",
        "10 tensors of 16, AdamW, scale + clip (host time)",
        lambda: [(16,)] * 10,
        32,
        kwargs=ADAMW,
        peers=("fused", "foreach", "plain", "compiled"),
    ),
)


def report_row(report: Report, row: Row, rounds: int) -> None:
    """Check, time and print one row."""
    sides = contestants_of(report, row)
    num_params = sum(p.numel() for p in sides["ours"].params)
    buffer = torch.zeros(max(4 * num_params, 1024))
    buffer.add_(1.0)
    streams = {"write": lambda: buffer.add_(1.0), "read": lambda: torch.dot(buffer, buffer)}
    times = time_rounds(sides, streams, rounds)
    writing, reading = times.pop("write"), times.pop("read")
    report.times(row.title, times, ours="ours")
    moved = row.bytes_per_param * num_params
    share = Spread.of(
        [
            (moved / ours_s) / (8.0 * buffer.numel() / write_s)
            for ours_s, write_s in zip(times["ours"], writing, strict=True)
        ]
    )
    of_params = num_params / buffer.numel()
    read_share = of_params * row.read_bytes / 4.0
    write_share = of_params * (row.bytes_per_param - row.read_bytes) / 8.0
    mix = Spread.of(
        [
            (read_share * read_s + write_share * write_s) / ours_s
            for ours_s, read_s, write_s in zip(times["ours"], reading, writing, strict=True)
        ]
    )
    rival = max((ratio(times, name, "ours") for name in times if name != "ours"), key=_median)
    best = min((ratio(times, name, "ours") for name in times if name != "ours"), key=_median)
    ours_rate = moved / Spread.of(times["ours"]).median / 1e9
    write_rate = 8.0 * buffer.numel() / Spread.of(writing).median / 1e9
    read_rate = 4.0 * buffer.numel() / Spread.of(reading).median / 1e9
    report.text(
        f"{num_params / 1e6:.2f} million parameters, {row.bytes_per_param:g} bytes each: ours "
        f"moves {ours_rate:.1f} GB/s, {share} of a read-modify-write stream's {write_rate:.1f}. "
        f"Of these bytes, {row.read_bytes:g} are only read: plain streams over as many read-only "
        f"bytes ({read_rate:.1f} GB/s) and the other ones take {mix} of our time. "
        f"Over the best peer: {best}; over the slowest: {rival}."
    )


def with_compiled(row: Row) -> Row:
    """The row with torch.compile among the peers."""
    return row if "compiled" in row.peers else replace(row, peers=(*row.peers, "compiled"))


def _median(spread: Spread) -> float:
    return spread.median


def main() -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        names = [r.name for r in (*ROWS, *GPU_ROWS)]
        parser.add_argument("--only", nargs="*", choices=names, help="some rows")
        parser.add_argument("--compiled", action="store_true", help="torch.compile as a peer")
        parser.add_argument("--cpu", action="store_true", help="the CPU's rows even on a GPU")

    args = parse_args(__doc__, options=options)
    report = Report("step", "The fused optimizer step", args)
    info = native.info()
    report.text(f"CPU path {info.get('cpu_path')}, thread team {info.get('team')}.")
    wanted = set(args.only or [r.name for r in (*ROWS, *GPU_ROWS)])
    on_gpu = torch.cuda.is_available()
    for row in GPU_ROWS if on_gpu else ():
        if row.name in wanted:
            report_gpu_row(report, with_compiled(row) if args.compiled else row, args.quick)
    for row in ROWS if args.cpu or args.only or not on_gpu else ():
        if row.name not in wanted:
            continue
        row = with_compiled(row) if args.compiled else row
        large = row.shapes is resnet50_shapes
        report_row(report, row, (5 if args.quick else 20) if large else (20 if args.quick else 200))
    report.finish()


if __name__ == "__main__":
    main()
