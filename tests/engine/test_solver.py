"""The optimizer of a config: groups by role, names, clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fasttrain.core.update import GradClip
from fasttrain.engine.bert_adam import BertAdam
from fasttrain.engine.defaults_cfg import get_cfg
from fasttrain.engine.solver import build_optimizer, grad_clip, parameter_groups
from support import assert_same


def model() -> nn.Module:
    shared = nn.Linear(3, 3)
    frozen = nn.Linear(3, 3)
    frozen.requires_grad_(False)
    return nn.Sequential(shared, nn.LayerNorm(3), shared, frozen, nn.Conv1d(1, 2, 3))


def test_equal_settings_share_a_group() -> None:
    cfg = get_cfg()
    cfg.SOLVER.update(
        {"BASE_LR": 0.1, "WEIGHT_DECAY": 0.01, "WEIGHT_DECAY_NORM": 0.02, "BIAS_LR_FACTOR": 2.0}
    )
    groups = parameter_groups(model(), cfg)
    found = {(g["lr"], g["weight_decay"]): len(g["params"]) for g in groups}
    assert found == {(0.1, 0.01): 2, (0.2, 0.0): 2, (0.1, 0.02): 2}
    cfg.SOLVER.update({"WEIGHT_DECAY": 0.0, "WEIGHT_DECAY_NORM": 0.0, "BIAS_LR_FACTOR": 1.0})
    assert [len(g["params"]) for g in parameter_groups(model(), cfg)] == [6]


def test_nothing_to_train_is_an_error() -> None:
    frozen = model().requires_grad_(False)
    with pytest.raises(ValueError, match="Sequential has no parameter with requires_grad=True"):
        parameter_groups(frozen, get_cfg())


@pytest.mark.parametrize(
    "name",
    ["Adam", "AdamW", "Adamax", "Adagrad", "RMSprop", "SGD", "RAdam", "PlainRAdam", "BertAdam"],
)
def test_every_named_optimizer_takes_a_step(name: str) -> None:
    cfg = get_cfg()
    cfg.SOLVER.NAME = name
    net = nn.Linear(2, 1)
    before = net.weight.detach().clone()
    optimizer = build_optimizer(cfg, net)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(net.weight, before)
    assert optimizer.param_groups[0]["lr"] == cfg.SOLVER.BASE_LR


def test_bert_adam_is_adam_without_its_correction() -> None:
    cfg = get_cfg()
    cfg.SOLVER.update({"NAME": "BertAdam", "BASE_LR": 0.1, "WEIGHT_DECAY": 0.2, "EPS": 1e-3})
    torch.manual_seed(0)
    net = nn.Linear(3, 1, bias=False)
    expected = net.weight.detach().double()
    optimizer = build_optimizer(cfg, net)
    first, second = torch.zeros_like(expected), torch.zeros_like(expected)
    for _ in range(3):
        net.weight.grad = torch.randn(1, 3)
        gradient = net.weight.grad.double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        expected = expected - 0.1 * (first / (second.sqrt() + 1e-3) + 0.2 * expected)
        optimizer.step()
    torch.testing.assert_close(net.weight.double(), expected, rtol=1e-5, atol=1e-6)
    again = build_optimizer(cfg, net)
    again.load_state_dict(optimizer.state_dict())
    assert_same(again.state_dict(), optimizer.state_dict())
    with pytest.raises(ValueError, match=r"betas in \[0, 1\), got lr=0.1, .*betas=\(1.0, 0.9\)"):
        BertAdam(net.parameters(), lr=0.1, betas=(1.0, 0.9))


@pytest.mark.parametrize("name", ["RAdam", "PlainRAdam"])
def test_the_decay_of_radam_is_decoupled(name: str) -> None:
    cfg = get_cfg()
    cfg.SOLVER.update({"NAME": name, "BASE_LR": 0.1, "WEIGHT_DECAY": 0.5})
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    net.weight.grad = torch.zeros(1, 1)
    build_optimizer(cfg, net).step()
    assert net.weight.item() == pytest.approx(1 - 0.1 * 0.5)


def test_settings_reach_the_optimizer() -> None:
    cfg = get_cfg()
    cfg.SOLVER.update({"NAME": "SGD", "MOMENTUM": 0.8, "NESTEROV": 1, "WEIGHT_DECAY": 0.1})
    group = build_optimizer(cfg, nn.Linear(2, 1, bias=False)).param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.8, True, 0.1)


def test_an_unknown_optimizer_names_the_nearest() -> None:
    cfg = get_cfg()
    cfg.SOLVER.NAME = "Adma"
    with pytest.raises(KeyError, match=r"no 'Adma' in the SOLVER registry \(nearest: Adam"):
        build_optimizer(cfg, nn.Linear(2, 1))


def test_clipping_is_read_from_the_config() -> None:
    cfg = get_cfg()
    assert grad_clip(cfg) == GradClip("norm", max_norm=0.1, norm_type=2.0)
    cfg.SOLVER.NORM_TYPE = math.inf
    assert grad_clip(cfg) == GradClip("norm", max_norm=0.1, norm_type=math.inf)
    cfg.SOLVER.GRAD_CLIP_TYPE = "value"
    assert grad_clip(cfg) == GradClip("value", clip_value=0.1)
    cfg.SOLVER.GRAD_CLIP = 0.0
    assert grad_clip(cfg) is None
    cfg.SOLVER.update({"GRAD_CLIP": 1.0, "GRAD_CLIP_TYPE": "l2"})
    with pytest.raises(ValueError, match="must be 'norm' or 'value', got 'l2'"):
        grad_clip(cfg)
