"""Kinds of devices: what is there, and how much memory was used at most."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

_MIB = 1024 * 1024


def is_cuda_available() -> bool:
    """Whether a CUDA device can be used."""
    return torch.cuda.is_available()


def is_npu_available() -> bool:
    """Whether an Ascend NPU can be used: torch_npu is installed and finds one."""
    return _is_backend_available("npu", "torch_npu")


def is_mlu_available() -> bool:
    """Whether a Cambricon MLU can be used: torch_mlu is installed and finds one."""
    return _is_backend_available("mlu", "torch_mlu")


def is_musa_available() -> bool:
    """Whether a Moore Threads GPU can be used: torch_musa is installed and finds one."""
    return _is_backend_available("musa", "torch_musa")


def is_mps_available() -> bool:
    """Whether Apple's Metal can be used."""
    return torch.backends.mps.is_available()


def is_dipu_available() -> bool:
    """Whether DIPU, which takes CUDA's place, is installed."""
    return importlib.util.find_spec("torch_dipu") is not None


def is_npu_support_full_precision() -> bool:
    """Whether the NPU computes in float32; False without one."""
    if not is_npu_available():
        return False
    import torch_npu.npu.utils as npu_utils

    first_with_full_precision = 220
    version: int = npu_utils.get_soc_version()
    return version >= first_with_full_precision


def _is_backend_available(name: str, package: str) -> bool:
    if importlib.util.find_spec(package) is None:
        return False
    importlib.import_module(package)  # adds the backend to torch
    backend = getattr(torch, name, None)
    return backend is not None and bool(backend.is_available())


def get_device() -> str:
    """The kind of device of this process: `"cuda"`, another accelerator's name, or `"cpu"`."""
    available = {
        "npu": is_npu_available,
        "cuda": is_cuda_available,
        "mlu": is_mlu_available,
        "musa": is_musa_available,
        "mps": is_mps_available,
    }
    return next((name for name, is_available in available.items() if is_available()), "cpu")


def get_max_cuda_memory(device: torch.device | None = None) -> int:
    """MiB of CUDA memory that tensors took at most since the last call."""
    return _max_memory(torch.cuda, device)


def get_max_musa_memory(device: torch.device | None = None) -> int:
    """MiB of MUSA memory that tensors took at most since the last call."""
    return _max_memory(vars(torch)["musa"], device)


def _max_memory(backend: Any, device: torch.device | None) -> int:
    peak_bytes: int = backend.max_memory_allocated(device=device)
    backend.reset_peak_memory_stats()
    return peak_bytes // _MIB
