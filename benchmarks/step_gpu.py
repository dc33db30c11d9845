"""The GPU's rows of bench_step: device time of large models, host time of many small tensors."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from common import Report, Spread, ratio
from step_contestants import (
    Contestant,
    Gradients,
    Row,
    host_seconds,
    small_shapes,
    time_rounds,
)
from step_peers import contestants_of, installed_peers

from fasttrain import native

ADAMW = {"lr": 1e-3}
MOST_PARAMS = 1_000_000_000
PEAK_BYTES_PER_PARAM = 60  # three contestants, shared gradients, what foreach needs on the way
PEER_BYTES_PER_PARAM = 12


def large_shapes() -> list[tuple[int, ...]]:
    """Matrices and vectors as in a transformer: 1e9 elements, or what fits the GPU's memory."""
    free_bytes, _ = torch.cuda.mem_get_info()
    per_param = PEAK_BYTES_PER_PARAM + PEER_BYTES_PER_PARAM * len(installed_peers("cuda"))
    left = min(MOST_PARAMS, int(0.75 * free_bytes / per_param))
    shapes: list[tuple[int, ...]] = []
    while left > 4096 * 4097:
        shapes += [(4096, 4096), (4096,)]
        left -= 4096 * 4097
    return [*shapes, (left,)]


GPU_ROWS = (
    Row(
        "gpu-adamw",
        "GPU: AdamW, float32, scale + clip",
        large_shapes,
        32,
        kwargs=ADAMW,
        peers=("fused", "foreach"),
        device="cuda",
    ),
    Row(
        "gpu-bf16",
        "GPU: AdamW, bf16 with fp32 master, scale + clip",
        large_shapes,
        30,
        kwargs=ADAMW,
        dtype=torch.bfloat16,
        peers=("fused",),
        device="cuda",
    ),
    Row(
        "gpu-bf16-clip",
        "GPU: AdamW, bf16 with fp32 master, clip without a loss scale",
        large_shapes,
        30,
        kwargs=ADAMW,
        scaled=False,
        dtype=torch.bfloat16,
        peers=("fused",),
        device="cuda",
    ),
    Row(
        "gpu-small",
        "GPU: 400 tensors of 1 to 4,096, AdamW, scale + clip",
        small_shapes,
        32,
        kwargs=ADAMW,
        peers=("fused", "foreach"),
        device="cuda",
    ),
)


def device_seconds(call: Callable[[], Any]) -> float:
    """Time between two events around `call` on the current stream, from an empty queue."""
    start: Any = torch.cuda.Event(enable_timing=True)
    end: Any = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def queue_seconds(call: Callable[[], Any]) -> float:
    """Host time of `call`, which finds an empty queue and is not waited for."""
    torch.cuda.synchronize()
    return host_seconds(call)


def count_syncs(side: Contestant) -> int:
    """How often one step waits for the device, as torch notices it."""
    side.prepare()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            side.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(w.message) for w in caught)


def copy_all(gradients: Gradients) -> None:
    """The copy that bandwidth is measured against: gigabytes where the model is large."""
    for grad, source in zip(gradients.grads, gradients.source, strict=True):
        grad.copy_(source)


def report_bandwidth(
    report: Report, row: Row, times: Mapping[str, list[float]], num_params: int, copied: int
) -> None:
    """What our step moves, as a share of what a copy on the same GPU moves."""
    moved = row.bytes_per_param * num_params
    pairs = zip(times["ours"], times["stream"], strict=True)
    share = Spread.of([(moved / ours_s) / (copied / copy_s) for ours_s, copy_s in pairs])
    ours_rate = moved / Spread.of(times["ours"]).median / 1e9
    copy_rate = copied / Spread.of(times["stream"]).median / 1e9
    over = ", ".join(
        f"{name} {ratio(times, name, 'ours')}" for name in times if name not in ("ours", "stream")
    )
    report.text(
        f"{num_params / 1e6:.2f} million parameters, {row.bytes_per_param:g} bytes each: ours "
        f"moves {ours_rate:.0f} GB/s, {share} of the {copy_rate:.0f} GB/s of copies between arrays "
        f"on the device. Time over ours: {over}."
    )


def report_host(report: Report, sides: Mapping[str, Contestant], rounds: int) -> None:
    """Host time per step, and how often a step waits for the device: ours never."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            sides["ours"].prepare()
            sides["ours"].step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    times = time_rounds(sides, {}, rounds, queue_seconds)
    report.times("GPU: 400 tensors, host time of a whole step", times, ours="ours")
    syncs = ", ".join(f"{name} {count_syncs(side)}" for name, side in sides.items())
    report.text(
        "Host time from an empty queue until the call returns; scaler's update and zero_grad "
        f"included. Waits for the device per step: {syncs}."
    )


def report_gpu_row(report: Report, row: Row, quick: bool) -> None:
    """Check, time and print one row; its memory is free again afterwards."""
    if not native.cuda_usable():
        report.text(f"{row.title}: ours has no kernels here ({native.cuda_problem()}).")
        return
    sides = contestants_of(report, row)
    gradients = sides["ours"].gradients
    num_params = sum(p.numel() for p in sides["ours"].params)
    copied = 2 * sum(g.numel() * g.element_size() for g in gradients.grads)
    small = row.shapes is small_shapes
    rounds = (50 if small else 5) if quick else (500 if small else 30)
    times = time_rounds(sides, {"stream": partial(copy_all, gradients)}, rounds, device_seconds)
    report.times(row.title, {n: t for n, t in times.items() if n != "stream"}, ours="ours")
    if small:
        report_host(report, sides, rounds)
    else:
        report_bandwidth(report, row, times, num_params, copied)
    peak_bytes = torch.cuda.max_memory_allocated()
    report.text(f"Device memory at the peak: {peak_bytes / 1e9:.1f} GB for all contestants.")
    del sides, gradients
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
