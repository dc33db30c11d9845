"""Fills the registry of optimizers, and builds optimizer wrappers from configs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fasttrain.core import fused
from fasttrain.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS

from .optimizer_wrapper import OptimWrapper


def _is_installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _deferred(module: str, name: str) -> Callable[..., Any]:
    """A builder that imports its package only when an optimizer is built."""

    def build(params: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(params, *args, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"`{module}.{name}`, imported when it is built."
    return build


def _register_missing(optimizers: Mapping[str, Any]) -> list[str]:
    """Register those whose name is free; all names."""
    for name, optimizer in optimizers.items():
        if name not in OPTIMIZERS.module_dict:
            OPTIMIZERS.register_module(name=name, module=optimizer)
    return list(optimizers)


def _register_package(package: str, names: Iterable[str]) -> list[str]:
    """Register the optimizers of an optional package; no name when it is not installed."""
    if not _is_installed(package.partition(".")[0]):
        return []
    return _register_missing({name: _deferred(package, name) for name in names})


def register_fused_optimizers() -> list[str]:
    """Register this project's fused optimizers, under the names of torch's that they replace."""
    return _register_missing(
        {
            name: value
            for name, value in vars(fused).items()
            if inspect.isclass(value) and issubclass(value, Optimizer)
            if value is not fused.FusedOptimizer
        }
    )


def register_torch_optimizers() -> list[str]:
    """Register all optimizers of torch; `TorchAdafactor` keeps the name `Adafactor` free."""
    optimizers = {
        name: value
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, Optimizer)
    }
    if "Adafactor" in optimizers:
        optimizers["TorchAdafactor"] = optimizers.pop("Adafactor")
    return _register_missing(optimizers)


def register_torch_npu_optimizers() -> list[str]:
    """Register the fused optimizers of torch_npu, if installed."""
    if not _is_installed("torch_npu"):
        return []
    optim = importlib.import_module("torch_npu").optim
    names = [n for n, v in vars(optim).items() if n.startswith("Npu") and inspect.isclass(v)]
    return _register_missing({name: getattr(optim, name) for name in names})


def register_dadaptation_optimizers() -> list[str]:
    """Register the optimizers of dadaptation, if installed."""
    return _register_package("dadaptation", ("DAdaptAdaGrad", "DAdaptAdam", "DAdaptSGD"))


def register_lion_optimizers() -> list[str]:
    """Register lion_pytorch's Lion, if installed and no other is there."""
    return _register_package("lion_pytorch", ("Lion",))


def register_sophia_optimizers() -> list[str]:
    """Register the optimizers of Sophia, if installed."""
    return _register_package("Sophia", ("Sophia", "SophiaG"))


def register_bitsandbytes_optimizers() -> list[str]:
    """Register the 8-bit optimizers of bitsandbytes, if installed."""
    names = (
        "AdamW8bit",
        "Adam8bit",
        "Adagrad8bit",
        "PagedAdam8bit",
        "PagedAdamW8bit",
        "LAMB8bit",
        "LARS8bit",
        "RMSprop8bit",
        "Lion8bit",
        "PagedLion8bit",
        "SGD8bit",
    )
    return _register_package("bitsandbytes.optim", names)


def register_transformers_optimizers() -> list[str]:
    """Register transformers' Adafactor, if installed."""
    return _register_package("transformers", ("Adafactor",))


FUSED_OPTIMIZERS = register_fused_optimizers()
TORCH_OPTIMIZERS = register_torch_optimizers()
NPU_OPTIMIZERS = register_torch_npu_optimizers()
DADAPTATION_OPTIMIZERS = register_dadaptation_optimizers()
LION_OPTIMIZERS = register_lion_optimizers()
SOPHIA_OPTIMIZERS = register_sophia_optimizers()
BITSANDBYTES_OPTIMIZERS = register_bitsandbytes_optimizers()
TRANSFORMERS_OPTIMIZERS = register_transformers_optimizers()


def build_optim_wrapper(model: nn.Module, cfg: Any) -> OptimWrapper:
    """Build an optimizer wrapper for `model`.

    Args:
        model: whose parameters are optimized.
        cfg: config of the wrapper, with `optimizer`, and optionally `paramwise_cfg` and
            `constructor` (the name of an optimizer wrapper constructor); left unchanged.
    """
    wrapper_cfg = cfg._cfg_dict.copy() if hasattr(cfg, "_cfg_dict") else cfg.copy()
    constructor_type = wrapper_cfg.pop("constructor", "DefaultOptimWrapperConstructor")
    paramwise_cfg = wrapper_cfg.pop("paramwise_cfg", None)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        {
            "type": constructor_type,
            "optim_wrapper_cfg": wrapper_cfg,
            "paramwise_cfg": paramwise_cfg,
        }
    )
    wrapper: OptimWrapper = constructor(model)
    return wrapper
