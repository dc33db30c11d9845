"""The learning-rate schedules by their config names, each a pure function of the iteration."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from fasttrain.core import schedule
from fasttrain.engine.config import read
from fasttrain.engine.registries import LR_SCHEDULER_REGISTRY

Multiplier = Callable[[int], float]


def warm(step: int, warmup_steps: float, after: Multiplier) -> float:
    """step / warmup_steps while warming up, then `after(step)`; 0 at step 0 of a warm-up."""
    return step / max(1.0, warmup_steps) if step < warmup_steps else after(step)


def _passed(step: int, warmup_steps: float, total_steps: float) -> float:
    """The share of the steps behind the warm-up that is over."""
    return (step - warmup_steps) / max(1.0, total_steps - warmup_steps)


def warmup_constant(step: int, *, warmup_steps: float) -> float:
    return warm(step, warmup_steps, lambda _: 1.0)


def warmup_linear(step: int, *, warmup_steps: float, total_steps: float, floor: float) -> float:
    """A straight line down to 0 at `total_steps`, never below `floor`."""
    return warm(
        step, warmup_steps, lambda s: max(floor, 1.0 - _passed(s, warmup_steps, total_steps))
    )


def warmup_cosine(step: int, *, warmup_steps: float, total_steps: float, floor: float) -> float:
    """Half a cosine down to 0 at `total_steps`, never below `floor`."""
    return warm(
        step,
        warmup_steps,
        lambda s: max(floor, schedule.ease_cosine(1.0, 0.0, _passed(s, warmup_steps, total_steps))),
    )


def warmup_cosine_restarts(
    step: int, *, warmup_steps: float, total_steps: float, cycles: float = 1.0
) -> float:
    """Half a cosine per cycle, jumping back up between two; 0 at the end."""

    def after(s: int) -> float:
        share = _passed(s, warmup_steps, total_steps)
        return 0.0 if share >= 1.0 else schedule.ease_cosine(1.0, 0.0, (cycles * share) % 1.0)

    return warm(step, warmup_steps, after)


def noam(step: int, *, model_size: float, warmup_steps: float, factor: float) -> float:
    """Attention Is All You Need, equation 3, times `factor`."""
    n = step + 1
    rise = n * warmup_steps**-1.5 if warmup_steps > 0 else math.inf
    return float(factor * model_size**-0.5 * min(n**-0.5, rise))


def multi_step(
    step: int,
    *,
    milestones: list[float],
    gamma: float,
    warmup_steps: float = 0,
    warmup_factor: float = 0.0,
    method: str = "linear",
) -> float:
    """`gamma` to the number of milestones passed, warmed up linearly or by a constant factor."""
    start = 1.0
    if step < warmup_steps:
        share = 0.0 if method == "constant" else step / warmup_steps
        start = schedule.ease_linear(warmup_factor, 1.0, share)
    return float(start * gamma ** bisect.bisect_right(milestones, step))


Maker = Callable[[Any, int], Multiplier]


def _register(name: str, make: Maker) -> None:
    def build(cfg: Any, optimizer: Optimizer, iters_per_epoch: int) -> LRScheduler:
        return LambdaLR(optimizer, make(cfg, iters_per_epoch))

    LR_SCHEDULER_REGISTRY.register(build, name=name)


def _span(cfg: Any, ipe: int) -> dict[str, float]:
    return {
        "warmup_steps": read(cfg, "LR_SCHEDULER.WARMUP", 0) * ipe,
        "total_steps": cfg.SOLVER.EPOCH * ipe,
    }


def _warmup_steps(cfg: Any, ipe: int) -> float:
    return _span(cfg, ipe)["warmup_steps"]


def _with_floor(function: Callable[..., float]) -> Maker:
    return lambda cfg, ipe: partial(
        function, **_span(cfg, ipe), floor=read(cfg, "LR_SCHEDULER.MIN_LR", 0.0)
    )


def _multi_step(milestones_key: str, *, warmed: bool) -> Maker:
    def make(cfg: Any, ipe: int) -> Multiplier:
        section = cfg.LR_SCHEDULER
        method = read(section, "WARMUP_METHOD", "linear")
        if method not in ("linear", "constant"):
            raise ValueError(
                f"LR_SCHEDULER.WARMUP_METHOD must be 'linear' or 'constant', got {method!r}"
            )
        milestones = [epoch * ipe for epoch in getattr(section, milestones_key)]
        if milestones != sorted(milestones):
            raise ValueError(f"LR_SCHEDULER.{milestones_key} must rise, got {milestones}")
        return partial(
            multi_step,
            milestones=milestones,
            gamma=section.GAMMA,
            warmup_steps=_warmup_steps(cfg, ipe) if warmed else 0,
            warmup_factor=read(section, "WARMUP_FACTOR", 0.0),
            method=method,
        )

    return make


def _step(cfg: Any, ipe: int) -> Multiplier:
    size, gamma = cfg.LR_SCHEDULER.STEP_SIZE * ipe, cfg.LR_SCHEDULER.GAMMA
    if size < 1:
        raise ValueError(f"LR_SCHEDULER.STEP_SIZE must be >= 1 iteration, got {size}")
    return lambda step: float(gamma ** (step // size))


def _noam(cfg: Any, ipe: int) -> Multiplier:
    section = cfg.LR_SCHEDULER
    if section.MODEL_SIZE <= 0:
        raise ValueError(f"NoamLR needs LR_SCHEDULER.MODEL_SIZE > 0, got {section.MODEL_SIZE}")
    return partial(
        noam, model_size=section.MODEL_SIZE, warmup_steps=section.WARMUP, factor=section.FACTOR
    )


def _build_noam(cfg: Any, optimizer: Optimizer, iters_per_epoch: int) -> LRScheduler:
    """The Noam schedule gives the learning rate itself: BASE_LR plays no part in it."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1.0
    return LambdaLR(optimizer, _noam(cfg, iters_per_epoch))


_register("StepLR", _step)
_register("FixLR", lambda cfg, ipe: lambda step: 1.0)
_register("MultiStepLR", _multi_step("MILESTONES", warmed=False))
_register("WarmupMultiStepLR", _multi_step("STEPS", warmed=True))
_register(
    "WarmupConstant",
    lambda cfg, ipe: partial(warmup_constant, warmup_steps=_warmup_steps(cfg, ipe)),
)
_register("WarmupLinear", _with_floor(warmup_linear))
_register("WarmupCosine", _with_floor(warmup_cosine))
_register(
    "WarmupCosineWithHardRestarts",
    lambda cfg, ipe: partial(warmup_cosine_restarts, **_span(cfg, ipe)),  # type: ignore[arg-type]
)
LR_SCHEDULER_REGISTRY.register(_build_noam, name="NoamLR")


def build_lr_scheduler(cfg: Any, optimizer: Optimizer, iters_per_epoch: int) -> LRScheduler:
    """The schedule that `cfg.LR_SCHEDULER.NAME` names; it is stepped once per iteration."""
    build = LR_SCHEDULER_REGISTRY.get(cfg.LR_SCHEDULER.NAME)
    scheduler: LRScheduler = build(cfg, optimizer, iters_per_epoch)
    return scheduler
