"""A wrapper of one's own needs four methods; the rest comes from the base."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import BaseOptimWrapper, StepLR


class Own(BaseOptimWrapper):
    def update_params(self, *args: Any, **kwargs: Any) -> None: ...
    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None: ...
    def zero_grad(self, **kwargs: Any) -> None: ...
    def step(self, **kwargs: Any) -> None: ...


def test_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseOptimWrapper(None)  # type: ignore[abstract]


def test_base_methods() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)
    wrapper = Own(optimizer)
    assert wrapper.param_groups is optimizer.param_groups
    assert (wrapper.get_lr(), wrapper.get_momentum()) == ({"lr": [0.1]}, {"momentum": [0.9]})
    assert wrapper.defaults["lr"] == 0.1
    scheduler = StepLR(wrapper, step_size=1)
    wrapper.step()
    scheduler.step()
    assert wrapper.get_lr()["lr"] == pytest.approx([0.01])


def test_base_settings_are_part_of_the_state() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    wrapper, fresh = Own(optimizer), Own(optimizer)
    assert "base_param_settings" not in wrapper.state_dict()
    wrapper.base_param_settings = {"lr": 0.5}
    fresh.load_state_dict(wrapper.state_dict())
    assert fresh.get_lr() == {"base_lr": [0.5], "lr": [0.1]}
