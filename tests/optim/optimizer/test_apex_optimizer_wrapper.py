"""The wrapper over apex, by a stand-in for apex."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import ApexOptimWrapper
from fasttrain.optim.optimizer import apex_optimizer_wrapper


class FakeApex:
    """The parts of `apex.amp` that the wrapper uses, with a loss scale of 2."""

    def __init__(self) -> None:
        self.initialized: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {"scale": 2}

    def initialize(self, model: nn.Module, optimizer: Any, **kwargs: Any) -> Any:
        optimizer._amp_stash = object()
        self.initialized.append(kwargs)
        return model, optimizer

    @contextmanager
    def scale_loss(self, loss: torch.Tensor, optimizer: Any) -> Iterator[torch.Tensor]:
        yield loss * 2

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> FakeApex:
    fake = FakeApex()
    monkeypatch.setattr(apex_optimizer_wrapper, "apex_amp", fake)
    return fake


def test_missing_apex_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apex_optimizer_wrapper, "apex_amp", None)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(AssertionError, match=r"Apex is not installed.*or use AmpOptimWrapper"):
        ApexOptimWrapper(optimizer=optimizer)


def test_initializes_once_and_scales(apex: FakeApex) -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = ApexOptimWrapper(opt_level="O2", optimizer=optimizer)
    for _ in range(2):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 1)).sum()
    assert [kwargs["opt_level"] for kwargs in apex.initialized] == ["O2"]
    wrapper.backward(loss)
    assert model.weight.grad is not None
    assert model.weight.grad.item() == 2.0
    assert wrapper.inner_count == 1


def test_state_waits_for_the_initialization(apex: FakeApex) -> None:
    model = nn.Linear(1, 1)
    wrapper = ApexOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    state = wrapper.state_dict()
    assert state["apex_amp"] == {"scale": 2}
    saved = {**state, "apex_amp": {"scale": 8}}
    wrapper.load_state_dict(saved)
    assert apex.state == {"scale": 2}
    with wrapper.optim_context(model):
        assert apex.state == {"scale": 8}
    assert saved["apex_amp"] == {"scale": 8}
