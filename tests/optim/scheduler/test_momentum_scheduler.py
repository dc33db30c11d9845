"""Momentum schedulers move `momentum`, and `betas` where an optimizer has them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fasttrain.optim import ConstantMomentum, LinearMomentum, OptimWrapper


def groups() -> list[dict]:
    return [{"params": nn.Linear(1, 1).parameters()} for _ in range(2)]


def test_momentum() -> None:
    optimizer = torch.optim.SGD(groups(), lr=0.1, momentum=0.8)
    scheduler = ConstantMomentum(optimizer, factor=0.5, end=3)
    shown = []
    for _ in range(3):
        shown.append([group["momentum"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert shown == [[0.4, 0.4], [0.4, 0.4], [0.8, 0.8]]
    assert scheduler.use_betas is False


def test_betas() -> None:
    optimizer = torch.optim.Adam(groups(), lr=0.1, betas=(0.8, 0.99))
    scheduler = LinearMomentum(optimizer, start_factor=0.5, end=3)
    shown = []
    for _ in range(3):
        shown.append([group["betas"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    firsts = [betas[0][0] for betas in shown]
    assert firsts == pytest.approx([0.4, 0.6, 0.8])
    assert all(second == 0.99 for betas in shown for _, second in betas)


def test_betas_of_a_wrapper_and_its_base_settings() -> None:
    wrapper = OptimWrapper(torch.optim.AdamW(groups(), lr=0.1, betas=(0.8, 0.99)))
    ConstantMomentum(wrapper, factor=0.5)
    assert wrapper.get_momentum() == {"momentum": [0.4, 0.4]}
    assert wrapper.base_param_settings is not None
    assert wrapper.base_param_settings["betas"] == (0.4, 0.99)


def test_more_than_two_betas_are_kept() -> None:
    optimizer = torch.optim.Adam(groups(), lr=0.1)
    scheduler = ConstantMomentum(optimizer, factor=0.5)
    for group in optimizer.param_groups:
        group["betas"] = (0.8, 0.9, 0.99)
    optimizer.param_groups[0]["betas"] = (0.8, 0.9, 0.99)
    scheduler.last_step = 5
    scheduler.use_betas = True
    scheduler._global_step = 5
    scheduler.step()
    assert optimizer.param_groups[0]["betas"] == (0.45, 0.9, 0.99)


def test_an_optimizer_without_momentum_is_refused() -> None:
    optimizer = torch.optim.Adagrad(groups(), lr=0.1)
    with pytest.raises(ValueError, match="optimizer must support momentum"):
        ConstantMomentum(optimizer)
