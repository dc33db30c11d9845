"""`fasttrain doctor`: what was built, what this machine offers, what is in use and why not."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import fasttrain
from fasttrain import native

# Instruction sets that matter to the kernels, as Linux names them.
CPU_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16", "vpclmulqdq")
OPTIONAL = {
    "tensorboard": "TensorboardVisBackend",
    "wandb": "WandbVisBackend",
    "mlflow": "MLflowVisBackend",
    "matplotlib": "fasttrain plot",
    "scikit-learn": "the digits example",
    "safetensors": "fasttrain export to .safetensors",
    "mmengine": "the parts of mmengine that fasttrain.dropin passes through",
}
Section = dict[str, str]


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `doctor` to the command line."""
    parser = commands.add_parser(
        "doctor", parents=[common], help="show what was built and what this machine offers"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    """Print the findings; the status is 0 also when something is missing."""
    findings = examine()
    if options.json:
        print(json.dumps(findings, indent=1))
        return 0
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for section, rows in findings.items():
        table.add_row(f"[cyan]{section}[/cyan]", "")
        for name, text in rows.items():
            table.add_row(f"  {name}", text)
    Console().print(table)
    return 0


def examine() -> dict[str, Section]:
    """Everything that `doctor` shows, section by section."""
    return {
        "fasttrain": about_package(),
        "native module": about_native(native.info()),
        "CPU": about_cpu(),
        "GPU": about_gpu(),
        "PyTorch": about_torch(),
        "optional packages": about_packages(),
    }


def about_package() -> Section:
    """Version and place of fasttrain and Python."""
    return {
        "version": fasttrain.__version__,
        "installed in": str(Path(fasttrain.__file__).parent),
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }


def about_native(info: dict[str, Any]) -> Section:
    """What was built and whether it is used, from `native.info()`."""
    if not info["available"]:
        return {
            "built": f"no: {info['reason']}",
            "in use": "pure-torch fallbacks, slower; build it with `pip install -e .`",
        }
    rows = {"built": f"yes, compiler {info['compiler']}"}
    if not info["enabled"]:
        rows["in use"] = f"pure-torch fallbacks: {info['reason']}"
    else:
        rows["in use"] = f"yes, CPU path {info['cpu_path']} of {', '.join(info['cpu_paths'])}"
    if not info["cuda"]:
        rows["CUDA backend"] = "not built: no nvcc was found, or FASTTRAIN_CUDA=OFF"
    elif not torch.cuda.is_available():
        rows["CUDA backend"] = f"built, not in use: {why_no_gpu()}"
    elif not info["enabled"]:
        rows["CUDA backend"] = f"built, not in use: {info['reason']}"
    else:
        rows["CUDA backend"] = "built and in use"
    return rows


def about_cpu() -> Section:
    """Model, cores and the instruction sets that the kernels care for."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": model.group(1) if model else platform.processor() or platform.machine(),
        "cores": f"{usable} usable of {os.cpu_count()}",
        "features": " ".join(flag for flag in CPU_FLAGS if flag in present) or "unknown",
    }


def about_gpu() -> Section:
    """The devices that torch sees, or why it sees none."""
    if not torch.cuda.is_available():
        return {"none": why_no_gpu()}
    rows = {}
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if found.major >= 8 else "no bf16"
        rows[f"cuda:{index}"] = (
            f"{found.name}, sm_{found.major}{found.minor}, "
            f"{found.total_memory / 2**30:.0f} GiB, {bf16}"
        )
    return rows


def why_no_gpu() -> str:
    """The reason why torch offers no CUDA device."""
    if torch.version.cuda is None:
        return "this torch is a CPU build"
    if not os.path.exists("/dev/nvidiactl"):
        return "no NVIDIA driver on this machine"
    return "torch finds no device; see nvidia-smi and CUDA_VISIBLE_DEVICES"


def about_torch() -> Section:
    """Version, builds and threads."""
    return {
        "version": torch.__version__,
        "CUDA build": torch.version.cuda or "no",
        "threads": f"{torch.get_num_threads()} in an operation, "
        f"{torch.get_num_interop_threads()} between operations",
        "CPU kernels": torch.backends.cpu.get_cpu_capability(),
        "distributed": "yes" if torch.distributed.is_available() else "no",
    }


def about_packages() -> Section:
    """Which optional packages are installed, and what the others would add."""
    rows = {}
    for package, purpose in OPTIONAL.items():
        try:
            rows[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            rows[package] = f"not installed; needed for {purpose}"
    return rows
