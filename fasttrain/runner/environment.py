"""The process of a run: its settings, and what the log says about the machine at the start."""

from __future__ import annotations

import platform
import sys
import time
from typing import Any

import numpy as np
import torch

from fasttrain import native
from fasttrain.core.env import raise_open_file_limit
from fasttrain.dist import broadcast, init_dist, is_distributed
from fasttrain.utils.dl_utils import set_multi_processing
from fasttrain.version import __version__

LINE = "-" * 60


def set_up_process(env_cfg: dict[str, Any], launcher: str) -> None:
    """Apply the environment's config: cuDNN, worker processes, process group, open files.

    Args:
        env_cfg: may have `cudnn_benchmark`, `mp_cfg` (arguments of `set_multi_processing`),
            `dist_cfg` and `resource_limit`.
        launcher: 'none', or how the processes of a distributed run were started.
    """
    if not isinstance(env_cfg, dict):
        raise TypeError(f"env_cfg should be a dict, but got {env_cfg}")
    distributed = launcher != "none"
    if env_cfg.get("cudnn_benchmark"):
        torch.backends.cudnn.benchmark = True
    set_multi_processing(**(env_cfg.get("mp_cfg") or {}), distributed=distributed)
    if distributed and not is_distributed():
        init_dist(launcher, **(env_cfg.get("dist_cfg") or {}))
    raise_open_file_limit(env_cfg.get("resource_limit", 4096))


def shared_time() -> float:
    """Seconds since the epoch, rank 0's on all ranks."""
    now = torch.tensor(time.time(), dtype=torch.float64)
    broadcast(now)
    return now.item()


def describe_system(seed: int | None) -> dict[str, Any]:
    """What the machine and the installed versions are."""
    found: dict[str, Any] = {
        "sys.platform": sys.platform,
        "Python": sys.version.replace("\n", ""),
        "CUDA available": torch.cuda.is_available(),
        "numpy_random_seed": seed,
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        for name in sorted(set(names)):
            devices = ",".join(str(index) for index, other in enumerate(names) if other == name)
            found[f"GPU {devices}"] = name
    found["Machine"] = platform.machine()
    found["NumPy"] = np.__version__
    found["PyTorch"] = torch.__version__
    found["PyTorch compiling details"] = torch.__config__.show()
    found["fasttrain"] = __version__
    found["fasttrain native module"] = "in use" if native.enabled() else "not in use"
    return found


def describe_environment(
    env_cfg: dict[str, Any], *, seed: int | None, launcher: str, world_size: int, **more: Any
) -> str:
    """The text that opens a log."""
    runtime = {
        **env_cfg,
        "seed": seed,
        **more,
        "Distributed launcher": launcher,
        "Distributed training": launcher != "none",
        "GPU number": world_size,
    }
    system = _indented(describe_system(seed))
    return (
        f"\n{LINE}\nSystem environment:{system}\n"
        f"\nRuntime environment:{_indented(runtime)}\n{LINE}\n"
    )


def _indented(entries: dict[str, Any]) -> str:
    return "".join(f"\n    {name}: {value}" for name, value in entries.items())
