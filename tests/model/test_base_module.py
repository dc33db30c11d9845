"""When which weights are initialized, and the record of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.logging import MMLogger
from fasttrain.model import BaseModule, ModuleDict, ModuleList, PretrainedInit, Sequential
from fasttrain.model import base_module as module_under_test

FIVE = dict(type="Constant", val=5, bias=5, layer="Linear")


class Linear(BaseModule):
    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.linear = nn.Linear(1, 1)


class OwnBias(Linear):
    def init_weights(self) -> None:
        super().init_weights()
        self.linear.bias.data.fill_(8)


class Parent(BaseModule):
    def __init__(self, child: nn.Module, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.child = child


def values(module: nn.Module) -> list[float]:
    return [param.flatten()[0].item() for param in module.parameters()]


def test_own_config_first_then_the_childrens_weights() -> None:
    model = Parent(OwnBias(FIVE), dict(type="Constant", val=1, bias=1, layer="Linear"))
    assert not model.is_init
    model.init_weights()
    assert values(model) == [5.0, 8.0]
    assert model.is_init
    assert model.child.is_init
    assert not hasattr(model, "_params_init_info")
    assert not hasattr(model.child.linear, "_params_init_info")


def test_a_second_call_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(
        module_under_test,
        "print_log",
        lambda msg, logger=None, level=logging.INFO: said.append((msg, level)),
    )
    model = Linear(FIVE)
    model.init_weights()
    model.linear.weight.data.fill_(2)
    model.init_weights()
    assert values(model) == [2.0, 5.0]
    assert ("init_weights of Linear has been called more than once.", logging.WARNING) in said


def test_initialized_children_are_left_alone() -> None:
    model = Parent(Linear(FIVE))
    before = values(model)
    model.child.is_init = True
    model.init_weights()
    assert values(model) == before


def test_wrapped_children_are_initialized() -> None:
    model = Parent(nn.DataParallel(OwnBias()))
    model.init_weights()
    assert values(model)[1] == 8.0


@pytest.mark.parametrize("kind", ["Pretrained", PretrainedInit])
def test_pretrained_weights_come_last(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"linear.weight": torch.full((1, 1), 7.0)}}, path)
    model = OwnBias([dict(type=kind, checkpoint=str(path)), FIVE])
    model.init_weights()
    assert values(model) == [7.0, 8.0]
    nested = Parent(OwnBias(FIVE), dict(type=kind, checkpoint=str(path), prefix=None))
    torch.save({"child.linear.bias": torch.full((1,), 6.0)}, path)
    nested.init_weights()
    assert values(nested) == [5.0, 6.0]


def test_the_config_is_copied() -> None:
    config = [dict(FIVE)]
    model = Linear(config)
    config[0]["val"] = 0
    assert model.init_cfg == [FIVE]
    assert repr(model).endswith(f"\ninit_cfg={[FIVE]}")
    assert "init_cfg" not in repr(Linear())


class NewParameter(BaseModule):
    def init_weights(self) -> None:
        self.late = nn.Parameter(torch.ones(1))


def test_parameters_may_not_appear_during_initialization() -> None:
    model = Parent(NewParameter())
    with pytest.raises(AssertionError, match="Find a new :obj:`Parameter` named `late`"):
        model.init_weights()
    assert not hasattr(model, "_params_init_info")


@pytest.mark.parametrize(
    "container",
    [
        Sequential(nn.Linear(1, 1), init_cfg=FIVE),
        ModuleList([nn.Linear(1, 1)], init_cfg=FIVE),
        ModuleDict({"a": nn.Linear(1, 1)}, init_cfg=[FIVE]),
    ],
    ids=lambda container: type(container).__name__,
)
def test_containers_initialize_what_they_hold(container: BaseModule) -> None:
    container.init_weights()
    assert values(container) == [5.0, 5.0]
    assert "init_cfg=" in repr(container)


def test_containers_work_empty_and_sliced() -> None:
    assert len(ModuleList()) == len(ModuleDict()) == len(Sequential()) == 0
    assert type(Sequential(nn.ReLU(), nn.ReLU())[:1]) is Sequential


def test_the_record_goes_to_the_log_file(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "run.log"
    logger = MMLogger.get_instance(request.node.name, log_file=str(path))
    assert MMLogger.get_current_instance() is logger
    model = Parent(OwnBias(), None)
    model.child.linear.weight.data.fill_(3)
    model.init_weights()
    for handler in logger.handlers:
        handler.flush()
    text = path.read_text(encoding="utf-8")
    assert "Name of parameter - Initialization information\n" in text
    assert (
        "\nchild.linear.weight - torch.Size([1, 1]): \nThe value is the same before and after "
        "calling `init_weights` of Parent  \n" in text
    )
    assert (
        "\nchild.linear.bias - torch.Size([1]): \nInitialized by user-defined `init_weights` in "
        "OwnBias  \n" in text
    )


@pytest.mark.parametrize("empty", [None, {}, []])
def test_an_empty_config_initializes_nothing(empty: Any) -> None:
    model = Linear(empty)
    before = [parameter.clone() for parameter in model.parameters()]
    model.init_weights()
    assert model.is_init
    assert all(map(torch.equal, before, model.parameters()))


def test_a_config_is_no_text() -> None:
    with pytest.raises(
        AssertionError, match="init_cfg should be a dict or a list of dict, but got"
    ):
        Linear("Constant").init_weights()
