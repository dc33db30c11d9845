"""What a run ran on: machine, compilers, versions."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import torch

from fasttrain.utils.dl_utils.parrots_wrapper import (
    _get_cuda_home,
    get_build_config,
    is_cuda_available,
    is_rocm_pytorch,
)
from fasttrain.version import MMENGINE_VERSION, __version__

__all__ = ["_get_cuda_home", "collect_env", "is_cuda_available", "is_rocm_pytorch"]


def collect_env() -> OrderedDict[str, Any]:
    """Name -> value of what is worth knowing about the machine and the software."""
    env: OrderedDict[str, Any] = OrderedDict()
    env["sys.platform"] = sys.platform
    env["Python"] = sys.version.replace("\n", "")
    env["CUDA available"] = torch.cuda.is_available()
    env["numpy_random_seed"] = int(np.random.get_state()[1][0])  # type: ignore[index]
    if env["CUDA available"]:
        env.update(_gpus())
        env["CUDA_HOME"] = _get_cuda_home()
        env["NVCC"] = _last_line(["nvcc", "-V"])
    env["GCC"] = _first_line(["gcc", "--version"])
    env["PyTorch"] = torch.__version__
    env["PyTorch compiling details"] = get_build_config()
    torchvision = _installed_version(("torchvision",))
    if torchvision is not None:
        env["TorchVision"] = torchvision
    env["OpenCV"] = _installed_version(("opencv-python", "opencv-python-headless")) or "n/a"
    env["fasttrain"] = __version__
    env["MMEngine"] = f"{MMENGINE_VERSION} (API of fasttrain)"
    return env


def _gpus() -> dict[str, str]:
    """`GPU 0,1` -> the name that these devices share."""
    indices = defaultdict(list)
    for index in range(torch.cuda.device_count()):
        indices[torch.cuda.get_device_name(index)].append(str(index))
    return {f"GPU {','.join(numbers)}": name for name, numbers in indices.items()}


def _output_lines(command: list[str]) -> list[str]:
    if shutil.which(command[0]) is None:
        return ["n/a"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip().splitlines() or ["n/a"]


def _first_line(command: list[str]) -> str:
    return _output_lines(command)[0]


def _last_line(command: list[str]) -> str:
    return _output_lines(command)[-1]


def _installed_version(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
