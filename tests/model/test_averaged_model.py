"""Averaged copies follow the published formulas and go on exactly after a resume."""

import copy

import pytest
import torch
from torch import nn

from fasttrain.model import (
    BaseAveragedModel,
    ExponentialMovingAverage,
    MomentumAnnealingEMA,
    StochasticWeightAverage,
)
from fasttrain.registry import MODELS
from support import assert_same, check_save_and_resume


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5))


def disturb(model, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator))
    for buffer in model.buffers():
        buffer.add_(1)


def swa(step, interval):
    return 1 / (step // interval + 1)


@pytest.mark.parametrize(
    ("kind", "options", "weight"),
    [
        (StochasticWeightAverage, {}, lambda step: swa(step, 1)),
        (StochasticWeightAverage, {"interval": 3}, lambda step: swa(step, 3)),
        (ExponentialMovingAverage, {}, lambda step: 0.0002),
        (ExponentialMovingAverage, {"momentum": 0.3, "interval": 2}, lambda step: 0.3),
        (MomentumAnnealingEMA, {}, lambda step: max(0.0002, 100 / (100 + step))),
        (
            MomentumAnnealingEMA,
            {"gamma": 3, "momentum": 0.4},
            lambda step: max(0.4, 3 / (3 + step)),
        ),
    ],
)
def test_formulas(kind, options, weight):
    model = make_model()
    average = kind(model, **options)
    expected = [p.detach().double() for p in model.parameters()]
    for step in range(9):
        disturb(model, step)
        average.update_parameters(model)
        for mean, source in zip(expected, model.parameters(), strict=True):
            if step == 0:
                mean.copy_(source.detach())
            elif step % options.get("interval", 1) == 0:
                mean.add_(source.detach() - mean, alpha=weight(step))
    for mean, parameter in zip(expected, average.module.parameters(), strict=True):
        torch.testing.assert_close(parameter.double(), mean, rtol=1e-5, atol=1e-6)
    assert_same(list(average.module.buffers()), list(model.buffers()))
    assert average.steps == 9


def test_buffers_may_be_averaged_too():
    model = make_model()
    average = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    for step in range(3):
        disturb(model, step)
        average.update_parameters(model)
    # 1 copied, then (1 + 2) / 2 = 1.5, then (1.5 + 3) / 2 = 2.25; whole numbers stay as copied
    assert_same(average.module[1].running_mean, torch.full((5,), 2.25))
    assert average.module[1].num_batches_tracked == 1


@pytest.mark.parametrize(
    "kind", [StochasticWeightAverage, ExponentialMovingAverage, MomentumAnnealingEMA]
)
def test_resume(kind):
    class Part:
        def __init__(self):
            self.model = make_model()
            self.average = kind(self.model)

        def state_dict(self):
            return {"model": self.model.state_dict(), "average": self.average.state_dict()}

        def load_state_dict(self, state):
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])

    def advance(part, step):
        disturb(part.model, step)
        part.average.update_parameters(part.model)
        return [p.detach() for p in part.average.parameters()]

    check_save_and_resume(Part, advance)


def test_an_own_rule_is_called_for_each_parameter():
    class Maximum(ExponentialMovingAverage):
        def avg_func(self, averaged_param, source_param, steps):
            averaged_param.copy_(torch.maximum(averaged_param, source_param))

    model = make_model()
    average = Maximum(model)
    highest = None
    for step in range(4):
        disturb(model, step)
        average.update_parameters(model)
        weight = model[0].weight.detach().clone()
        highest = weight if highest is None else torch.maximum(highest, weight)
    assert_same(average.module[0].weight.detach(), highest)


def test_it_is_a_frozen_copy_that_runs():
    model = make_model()
    average = BaseAveragedModel(model)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert average.module is not model
    average.eval()
    x = torch.randn(3, 7)
    assert_same(average(x).detach(), copy.deepcopy(model).eval()(x).detach())
    assert list(average.state_dict())[:2] == ["steps", "module.0.weight"]


def test_another_model_may_be_followed_and_copies_are_independent():
    model = make_model()
    average = ExponentialMovingAverage(model, momentum=0.5)
    average.update_parameters(model)
    twin = copy.deepcopy(average)
    other = make_model()
    disturb(other, 1)
    average.update_parameters(other)
    assert_same(twin.module[0].weight, model[0].weight)
    expected = (model[0].weight + other[0].weight) / 2
    torch.testing.assert_close(average.module[0].weight, expected.detach())


def test_the_registry_builds_it():
    model = make_model()
    average = MODELS.build({"type": "ExponentialMovingAverage", "momentum": 0.1, "model": model})
    assert average.momentum == 0.1


@pytest.mark.parametrize("momentum", [-1, 0, 1, 2])
def test_momentum_out_of_range(momentum):
    with pytest.raises(AssertionError, match=r"momentum must be in range \(0.0, 1.0\)but got"):
        ExponentialMovingAverage(make_model(), momentum=momentum)


def test_gamma_out_of_range():
    with pytest.raises(AssertionError, match="gamma must be greater than 0, but got -1"):
        MomentumAnnealingEMA(make_model(), gamma=-1)
