"""Names of torch that downstream code imports from here."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeMixin
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)
from torch.utils.data import DataLoader

TORCH_VERSION = torch.__version__

__all__ = [
    "TORCH_VERSION",
    "DataLoader",
    "SyncBatchNorm",
    "_AdaptiveAvgPoolNd",
    "_AdaptiveMaxPoolNd",
    "_AvgPoolNd",
    "_BatchNorm",
    "_ConvNd",
    "_ConvTransposeMixin",
    "_InstanceNorm",
    "_MaxPoolNd",
    "_get_cuda_home",
    "get_build_config",
    "is_cuda_available",
    "is_rocm_pytorch",
]


def is_cuda_available() -> bool:
    """Whether a CUDA device can be used."""
    return torch.cuda.is_available()


def is_rocm_pytorch() -> bool:
    """Whether torch was built for AMD's ROCm."""
    version: Any = getattr(torch.version, "hip", None)
    return version is not None


def _get_cuda_home() -> str | None:
    """The folder of the CUDA toolkit, or of ROCm, that extensions are compiled with."""
    names = ("ROCM_HOME",) if is_rocm_pytorch() else ("CUDA_HOME", "CUDA_PATH")
    from_environment = (os.environ.get(name) for name in names)
    return next((home for home in from_environment if home), None)


def get_build_config() -> str:
    """How torch was compiled, in several lines."""
    return str(torch.__config__.show())
