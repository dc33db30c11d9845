"""The optimizer of a config: parameter groups by role, the class by name, and how to clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fasttrain.core import fused
from fasttrain.core.update import GradClip
from fasttrain.engine.bert_adam import BertAdam
from fasttrain.engine.config import read
from fasttrain.engine.registries import SOLVER_REGISTRY

NORM_MODULES = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def _roles(model: nn.Module) -> Iterator[tuple[nn.Parameter, str]]:
    """Every trained parameter once, with its role: norm, bias or weight."""
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            is_norm = isinstance(module, NORM_MODULES)
            yield parameter, "norm" if is_norm else "bias" if name == "bias" else "weight"


def parameter_groups(model: nn.Module, cfg: Any) -> list[dict[str, Any]]:
    """The model's parameters, those of equal settings in one group.

    Raises:
        ValueError: the model has no parameter to train.
    """
    solver = cfg.SOLVER
    lr, bias_lr = solver.BASE_LR, solver.BASE_LR * read(solver, "BIAS_LR_FACTOR", 1.0)
    decay = solver.WEIGHT_DECAY
    settings = {
        "weight": (lr, decay),
        "norm": (lr, read(solver, "WEIGHT_DECAY_NORM", decay)),
        "bias": (bias_lr, read(solver, "WEIGHT_DECAY_BIAS", decay)),
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, role in _roles(model):
        groups.setdefault(settings[role], []).append(parameter)
    if not groups:
        raise ValueError(
            f"{type(model).__name__} has no parameter with requires_grad=True: nothing to train"
        )
    return [
        {"params": parameters, "lr": group_lr, "weight_decay": group_decay}
        for (group_lr, group_decay), parameters in groups.items()
    ]


def grad_clip(cfg: Any) -> GradClip | None:
    """How `cfg.SOLVER` asks to clip gradients; None when GRAD_CLIP <= 0.

    Raises:
        ValueError: GRAD_CLIP_TYPE is neither `norm` nor `value`.
    """
    bound = read(cfg, "SOLVER.GRAD_CLIP", 0.0)
    if bound <= 0:
        return None
    kind = read(cfg, "SOLVER.GRAD_CLIP_TYPE", "norm")
    if kind == "value":
        return GradClip("value", clip_value=bound)
    if kind != "norm":
        raise ValueError(f"SOLVER.GRAD_CLIP_TYPE must be 'norm' or 'value', got {kind!r}")
    norm_type = float(read(cfg, "SOLVER.NORM_TYPE", 2.0))
    return GradClip("norm", max_norm=bound, norm_type=math.inf if norm_type < 0 else norm_type)


def _register(name: str, cls: Callable[..., Optimizer], **keys: str) -> None:
    """Register an optimizer class whose arguments are read from these keys of `cfg.SOLVER`."""

    def build(cfg: Any, params: Any) -> Optimizer:
        arguments = {argument: read(cfg.SOLVER, key) for argument, key in keys.items()}
        given = {name: value for name, value in arguments.items() if value is not None}
        for flag in ("nesterov", "amsgrad", "centered"):
            if flag in given:
                given[flag] = bool(given[flag])
        if "betas" in given:
            given["betas"] = tuple(given["betas"])
        return cls(params, lr=cfg.SOLVER.BASE_LR, **given)

    SOLVER_REGISTRY.register(build, name=name)


_DECAY = {"weight_decay": "WEIGHT_DECAY"}
_ADAM = {"betas": "BETAS", "eps": "EPS", **_DECAY}


def _best(name: str) -> Callable[..., Optimizer]:
    """Our fused class of that name, or torch's."""
    found: Callable[..., Optimizer] = getattr(fused, name, None) or getattr(torch.optim, name)
    return found


_register(
    "SGD",
    _best("SGD"),
    momentum="MOMENTUM",
    dampening="DAMPENING",
    nesterov="NESTEROV",
    **_DECAY,
)
_register("Adam", _best("Adam"), amsgrad="AMSGRAD", **_ADAM)
_register("AdamW", _best("AdamW"), amsgrad="AMSGRAD", **_ADAM)
_register("BertAdam", BertAdam, **_ADAM)
_register("Adamax", torch.optim.Adamax, **_ADAM)
# Both spellings stand for one algorithm, whose weight decay is decoupled, as its authors' is.
_register("RAdam", partial(torch.optim.RAdam, decoupled_weight_decay=True), **_ADAM)
_register("PlainRAdam", partial(torch.optim.RAdam, decoupled_weight_decay=True), **_ADAM)
_register(
    "Adagrad",
    _best("Adagrad"),
    lr_decay="LR_DECAY",
    initial_accumulator_value="INITIAL_ACCUMULATOR_VALUE",
    eps="EPS",
    **_DECAY,
)
_register(
    "RMSprop",
    _best("RMSprop"),
    alpha="ALPHA",
    eps="EPS",
    momentum="MOMENTUM",
    centered="CENTERED",
    **_DECAY,
)


def build_optimizer(cfg: Any, model: nn.Module) -> Optimizer:
    """The optimizer that `cfg.SOLVER.NAME` names, over the model's parameters.

    Clipping is not the optimizer's: the Updater does it (see `grad_clip`).
    """
    optimizer: Optimizer = SOLVER_REGISTRY.get(cfg.SOLVER.NAME)(cfg, parameter_groups(model, cfg))
    return optimizer
