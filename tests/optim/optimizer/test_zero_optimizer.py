"""The redundancy-free optimizer on one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import nn

from fasttrain.optim import OPTIMIZERS, optimizer
from fasttrain.optim.optimizer import zero_optimizer


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_is_made_when_asked_for() -> None:
    assert optimizer.ZeroRedundancyOptimizer is zero_optimizer.ZeroRedundancyOptimizer
    with pytest.raises(AttributeError, match=r"module 'fasttrain.optim.optimizer' has no .* 'Zer'"):
        optimizer.Zer  # noqa: B018


def test_steps_and_saves(process_group: None) -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    built = OPTIMIZERS.build(
        {
            "type": "ZeroRedundancyOptimizer",
            "optimizer_type": "SGD",
            "lr": 0.1,
            "params": model.parameters(),
        }
    )
    assert isinstance(built, optimizer.ZeroRedundancyOptimizer)
    model(torch.ones(1, 2)).sum().backward()
    built.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.1)
    assert built.state_dict()["param_groups"][0]["lr"] == 0.1


def test_unknown_optimizer_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"'torch.optim' has no attribute 'SGDD'; optimizer_"):
        optimizer.ZeroRedundancyOptimizer(nn.Linear(1, 1).parameters(), "SGDD", lr=0.1)
