"""Averaged copies of a model: equal weights (SWA), exponential (EMA), exponential with warm-up."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from logging import WARNING
from typing import Any

import torch
from torch import Tensor, nn

from fasttrain.logging import print_log
from fasttrain.registry import MODELS


class BaseAveragedModel(nn.Module):
    """A frozen copy of a model that follows it by `avg_func`.

    Args:
        model: what is averaged; copied.
        interval: every how many calls of `update_parameters` the average moves.
        device: of the copy; None leaves it on the model's.
        update_buffers: True averages floating-point buffers too and makes them part of the average,
            False copies all buffers at each call.
    """

    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        interval: int = 1,
        device: torch.device | None = None,
        update_buffers: bool = False,
    ) -> None:
        super().__init__()
        self.module = deepcopy(model).requires_grad_(False)
        self.interval = interval
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("steps", torch.tensor(0, dtype=torch.long, device=device))
        self.update_buffers = update_buffers
        if update_buffers:
            self.avg_parameters: dict[str, Tensor] = dict(self.module.state_dict())
        else:
            self.avg_parameters = dict(self.module.named_parameters())
        self._pairs = _Pairs()

    @abstractmethod
    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: Tensor | int) -> None:
        """Move `averaged_param` in place towards `source_param`."""

    def avg_all(
        self, averaged: Sequence[Tensor], sources: Sequence[Tensor], steps: Tensor | int
    ) -> None:
        """Move all floating-point tensors; a subclass may do so in fewer launches."""
        for mean, source in zip(averaged, sources, strict=True):
            self.avg_func(mean, source, steps)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the averaged copy."""
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Let the average follow `model` once; the first call copies it."""
        pairs = self._pairs.of(self, model)
        steps = int(self.steps)  # sync point when the counter is on a GPU (`device` was given)
        if steps == 0:
            _copy(pairs.averaged + pairs.averaged_rest, pairs.sources + pairs.sources_rest)
        elif steps % self.interval == 0 and pairs.averaged:
            self.avg_all(pairs.averaged, _beside(pairs.averaged, pairs.sources), steps)
        if not self.update_buffers:
            _copy(pairs.averaged_buffers, pairs.source_buffers)
        self.steps += 1

    def __deepcopy__(self, memo: dict[int, Any]) -> BaseAveragedModel:
        copy = self.__class__.__new__(self.__class__)
        memo[id(self)] = copy
        for key, value in self.__dict__.items():
            copy.__dict__[key] = _Pairs() if key == "_pairs" else deepcopy(value, memo)
        return copy


class _Pairs:
    """The averaged tensors and those they follow, listed once for each model."""

    def __init__(self) -> None:
        self._model: weakref.ref[nn.Module] | None = None
        self.averaged: list[Tensor] = []
        self.sources: list[Tensor] = []
        self.averaged_rest: list[Tensor] = []
        self.sources_rest: list[Tensor] = []
        self.averaged_buffers: list[Tensor] = []
        self.source_buffers: list[Tensor] = []

    def of(self, owner: BaseAveragedModel, model: nn.Module) -> _Pairs:
        if self._model is not None and self._model() is model:
            return self
        self._model = weakref.ref(model)
        found = model.state_dict() if owner.update_buffers else dict(model.named_parameters())
        pairs = [(mean.data, found[name].data) for name, mean in owner.avg_parameters.items()]
        moving = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        rest = [pair for pair in pairs if not pair[0].dtype.is_floating_point]
        self.averaged, self.sources = [p[0] for p in moving], [p[1] for p in moving]
        self.averaged_rest, self.sources_rest = [p[0] for p in rest], [p[1] for p in rest]
        self.averaged_buffers = list(owner.module.buffers())
        self.source_buffers = list(model.buffers())
        return self


@MODELS.register_module()
class StochasticWeightAverage(BaseAveragedModel):
    """The mean of all snapshots, https://arxiv.org/abs/1803.05407 eq. 1."""

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: Tensor | int) -> None:
        weight = 1 / float(int(steps) // self.interval + 1)
        averaged_param.add_(source_param - averaged_param, alpha=weight)


@MODELS.register_module()
class ExponentialMovingAverage(BaseAveragedModel):
    """average = (1 - momentum) * average + momentum * source.

    Args:
        model, interval, device, update_buffers: see `BaseAveragedModel`.
        momentum: the share of the newest weights; small, unlike torch's decay (1 - momentum).
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        interval: int = 1,
        device: torch.device | None = None,
        update_buffers: bool = False,
    ) -> None:
        super().__init__(model, interval, device, update_buffers)
        assert 0.0 < momentum < 1.0, f"momentum must be in range (0.0, 1.0)but got {momentum}"
        if momentum > 0.5:
            print_log(
                "The value of momentum in EMA is usually a small number,"
                "which is different from the conventional notion of "
                f"momentum but got {momentum}. Please make sure the value is correct.",
                logger="current",
                level=WARNING,
            )
        self.momentum = momentum

    def weight(self, steps: Tensor | int) -> float:
        """The share of the newest weights at this update."""
        return self.momentum

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: Tensor | int) -> None:
        averaged_param.lerp_(source_param, self.weight(steps))

    def avg_all(
        self, averaged: Sequence[Tensor], sources: Sequence[Tensor], steps: Tensor | int
    ) -> None:
        if type(self).avg_func is ExponentialMovingAverage.avg_func:
            torch._foreach_lerp_(list(averaged), list(sources), self.weight(steps))
        else:
            super().avg_all(averaged, sources, steps)


@MODELS.register_module()
class MomentumAnnealingEMA(ExponentialMovingAverage):
    """EMA whose momentum falls to its value as gamma / (gamma + steps).

    Args:
        model, momentum, interval, device, update_buffers: see `ExponentialMovingAverage`.
        gamma: after about gamma / momentum updates the momentum has its final value.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: int = 100,
        interval: int = 1,
        device: torch.device | None = None,
        update_buffers: bool = False,
    ) -> None:
        super().__init__(model, momentum, interval, device, update_buffers)
        assert gamma > 0, f"gamma must be greater than 0, but got {gamma}"
        self.gamma = gamma

    def weight(self, steps: Tensor | int) -> float:
        return max(self.momentum, self.gamma / (self.gamma + int(steps)))


def _beside(averaged: list[Tensor], sources: list[Tensor]) -> list[Tensor]:
    """The sources on the devices of their averages; the very list when they are there already."""
    if all(m.device == s.device for m, s in zip(averaged, sources, strict=True)):
        return sources
    return [s.to(m.device, non_blocking=True) for m, s in zip(averaged, sources, strict=True)]


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)
