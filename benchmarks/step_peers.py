"""Optimizers of other packages that bench_step compares, where they can be imported and agree."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from common import Report
from step_contestants import Contestant, Row, make_contestants

# device -> name -> module, class, and the arguments that make it AdamW with torch's defaults.
PEERS: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "cpu": {
        # Compiles its kernels when the first one is made: most of a minute, once for a machine.
        "DeepSpeed CPUAdam": (
            "deepspeed.ops.adam", "DeepSpeedCPUAdam", {"adamw_mode": True, "weight_decay": 1e-2}
        ),
    },
    "cuda": {
        "apex": ("apex.optimizers", "FusedAdam", {"adam_w_mode": True, "weight_decay": 1e-2}),
        "bitsandbytes": ("bitsandbytes.optim", "AdamW32bit", {"weight_decay": 1e-2}),
        "DeepSpeed": (
            "deepspeed.ops.adam", "FusedAdam", {"adam_w_mode": True, "weight_decay": 1e-2}
        ),
    },
}  # fmt: skip


def installed_peers(device: str) -> dict[str, Callable[..., Any]]:
    """What makes the optimizers of the peers that can be imported here."""
    found = {}
    for name, (module, attribute, kwargs) in PEERS[device].items():
        try:
            make = getattr(importlib.import_module(module), attribute)
        except Exception:  # not installed, or not fit for this machine: left out either way
            continue
        found[name] = partial(make, **kwargs)
    return found


def contestants_of(report: Report, row: Row) -> dict[str, Contestant]:
    """Everyone that runs and agrees here; a peer that does not is named and left out."""
    peers = {}
    if row.optimizer == "AdamW" and row.dtype == torch.float32 and not row.overlap:
        peers = {n: partial(m, **row.kwargs) for n, m in installed_peers(row.device).items()}
    tiny = replace(row, shapes=lambda: [(1000,)], peers=())
    for name in list(peers):
        try:
            make_contestants(tiny, {name: peers[name]})
        except Exception as e:
            report.text(f"{name} is left out: {type(e).__name__}: {str(e).splitlines()[0]}")
            del peers[name]
    return make_contestants(row, peers)
