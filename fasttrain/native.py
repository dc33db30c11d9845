"""The only door to the compiled module: whether it is there, whether to use it, what it offers."""

from __future__ import annotations

import importlib
import os
from typing import Any

# Loaded first on purpose: the compiled module runs its parallel regions in torch's own threads.
import torch

_C: Any = None
_missing: str | None = None
try:
    _C = importlib.import_module("fasttrain._C")
except ImportError as e:  # a source tree that was never built
    _missing = str(e)


def available() -> bool:
    """Whether the compiled module could be imported."""
    return _C is not None


def enabled() -> bool:
    """Whether parts should use the compiled module; `FASTTRAIN_NATIVE=0` chooses the fallbacks."""
    return _C is not None and os.environ.get("FASTTRAIN_NATIVE", "1") != "0"


def module() -> Any:
    """The compiled module.

    Raises:
        RuntimeError: it was not built; the message says how to build it.
    """
    if _C is None:
        raise RuntimeError(
            f"fasttrain's compiled module is not there ({_missing}); "
            "build it with `pip install -e .`, or set FASTTRAIN_NATIVE=0 to use the fallbacks"
        )
    return _C


def cpu_path() -> str:
    """The CPU code path to use: `FASTTRAIN_CPU_PATH` when set, else the best this CPU runs.

    Raises:
        ValueError: the environment asks for a path that this CPU or build does not have.
    """
    paths: list[str] = list(module().cpu_paths())
    wanted = os.environ.get("FASTTRAIN_CPU_PATH", paths[-1])
    if wanted not in paths:
        raise ValueError(f"FASTTRAIN_CPU_PATH must be one of {paths}, got {wanted!r}")
    return wanted


def tensor_access(exchange: bool = True) -> Any:
    """How the compiled module looks into tensors.

    Args:
        exchange: by torch's DLPack functions where it has them (2.10 and later); False always
            takes the tensors' Python methods.
    """
    return module().TensorAccess(torch.Tensor, torch.autograd.graph.increment_version, exchange)


def cuda_problem() -> str | None:
    """Why the CUDA backend cannot be used here; None when it can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return str(module().cuda_problem()) or None


def cuda_usable() -> bool:
    """Whether the CUDA backend was built and can run on this machine's GPU."""
    return enabled() and cuda_problem() is None


def info() -> dict[str, Any]:
    """What was built, what CPU and GPU offer, and what is in use (or why not)."""
    found: dict[str, Any] = {
        "available": available(),
        "enabled": enabled(),
        "reason": _missing,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    if _C is None:
        return found
    if not found["enabled"]:
        found["reason"] = "switched off by FASTTRAIN_NATIVE=0"
    return (
        found
        | dict(_C.build_info())
        | {
            "cuda_problem": cuda_problem(),
            "team": _C.thread_team(),
            "cpu_paths": list(_C.cpu_paths()),
            "cpu_path": cpu_path(),
        }
    )
