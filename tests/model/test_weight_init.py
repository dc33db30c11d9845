"""Initializers: what they fill, which modules they choose, what they refuse."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.model import (
    BaseInit,
    Caffe2XavierInit,
    ConstantInit,
    KaimingInit,
    NormalInit,
    PretrainedInit,
    TruncNormalInit,
    UniformInit,
    XavierInit,
    caffe2_xavier_init,
    constant_init,
    initialize,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    update_init_info,
    xavier_init,
)


def small() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Linear(2, 2), nn.BatchNorm2d(2))
    for param in model.parameters():
        param.data.zero_()
    return model


def values(module: nn.Module) -> list[float]:
    return [param.flatten()[0].item() for param in module.parameters()]


def seeded(fill: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The weight of a fresh Linear after `fill(module)` from a fixed seed."""
    torch.manual_seed(0)
    layer = nn.Linear(40, 30)
    torch.manual_seed(1)
    fill(layer, *args, **kwargs)
    assert layer.bias.tolist() == [0.0] * 30
    return layer.weight.detach()


@pytest.mark.parametrize(
    ("initializer", "function", "info"),
    [
        (ConstantInit(2, layer="Linear"), lambda m: constant_init(m, 2), "val=2, bias=0"),
        (XavierInit(layer="Linear"), xavier_init, "gain=1, distribution=normal, bias=0"),
        (NormalInit(layer="Linear"), normal_init, "mean=0, std=1, bias=0"),
        (TruncNormalInit(layer="Linear"), trunc_normal_init, "a=-2, b=2, mean=0, std=1, bias=0"),
        (UniformInit(layer="Linear"), uniform_init, "a=0, b=1, bias=0"),
        (
            KaimingInit(layer="Linear"),
            kaiming_init,
            "a=0, mode=fan_out, nonlinearity=relu, distribution=normal, bias=0",
        ),
        (
            Caffe2XavierInit(layer="Linear"),
            caffe2_xavier_init,
            "a=1, mode=fan_in, nonlinearity=leaky_relu, distribution=uniform, bias=0",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_classes_do_what_their_functions_do(initializer: Any, function: Any, info: str) -> None:
    assert torch.equal(seeded(initializer), seeded(function))
    assert initializer._get_init_info() == f"{type(initializer).__name__}: {info}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bias": "a"}, "bias must be a number, but got a <class 'str'>"),
        ({"bias_prob": 1}, "bias_prob type must be float, but got <class 'int'>"),
        ({"layer": 1}, "layer must be a str or a list of str, but got a <class 'int'>"),
        ({"layer": ("Linear",)}, "layer must be a str or a list of str, but got a <class 'tuple'>"),
    ],
)
def test_wrong_arguments(arguments: dict, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        BaseInit(**arguments)


CONSTANT = dict(type="Constant", val=1, bias=2)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONSTANT, [0, 0, 0, 0, 0, 0]),
        (dict(CONSTANT, layer="Conv2d"), [1, 2, 0, 0, 0, 0]),
        (dict(CONSTANT, layer="_ConvNd"), [1, 2, 0, 0, 0, 0]),
        (dict(CONSTANT, layer=["Linear", "_BatchNorm"]), [0, 0, 1, 2, 1, 2]),
        (dict(CONSTANT, override=dict(name="0")), [1, 2, 0, 0, 0, 0]),
        (
            dict(CONSTANT, layer="Linear", override=dict(name="2", type="Constant", val=5)),
            [0, 0, 1, 2, 5, 0],
        ),
        (
            dict(
                CONSTANT,
                layer="Linear",
                override=[dict(name="0"), dict(name="2", type="Constant", val=5, bias=6)],
            ),
            [1, 2, 1, 2, 5, 6],
        ),
        (
            [dict(CONSTANT, layer="Conv2d"), dict(type="Constant", val=4, layer="Linear")],
            [1, 2, 4, 0, 0, 0],
        ),
    ],
)
def test_configs_choose_modules(config: Any, expected: list[float]) -> None:
    model, before = small(), copy.deepcopy(config)
    initialize(model, config)
    assert values(model) == expected
    assert config == before


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        (1, TypeError, "init_cfg must be a dict or a list of dict, but got <class 'int'>"),
        (dict(type="Nonesuch"), KeyError, "Nonesuch is not in the"),
        (dict(CONSTANT, override="0"), TypeError, "override must be a dict or a list of dict"),
        (dict(CONSTANT, override=dict(type="Constant")), ValueError, 'contain the key "name"'),
        (dict(CONSTANT, override=dict(name="0", val=3)), ValueError, '`override` need "type" key'),
        (dict(CONSTANT, override=dict(name="9")), RuntimeError, "did not have attribute 9"),
    ],
)
def test_wrong_configs(config: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        initialize(small(), config)


def test_a_pretrained_part_by_prefix(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    state = {"backbone.weight": torch.full((1, 1), 3.0), "head.weight": torch.full((1, 1), 4.0)}
    torch.save({"state_dict": state}, path)
    layer = nn.Linear(1, 1, bias=False)
    PretrainedInit(str(path), prefix="backbone.")(layer)
    assert values(layer) == [3.0]
    assert PretrainedInit("x")._get_init_info() == "PretrainedInit: load from x"
    assert BaseInit(bias=1)._get_init_info() == "BaseInit, bias=1"


def test_a_record_is_needed() -> None:
    with pytest.raises(AssertionError, match="Can not find `_params_init_info` in Linear"):
        update_init_info(nn.Linear(1, 1), "note")


def test_the_bias_may_be_given_as_a_probability() -> None:
    assert ConstantInit(1, bias_prob=0.5).bias == 0
    assert ConstantInit(1, bias=3, bias_prob=0.01).bias == pytest.approx(-4.59511985)


def test_modules_draw_their_numbers_in_the_order_of_apply() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    torch.manual_seed(0)
    NormalInit(layer="Linear")(model)
    torch.manual_seed(0)
    expected = [torch.randn(2, 2) for _ in range(3)]
    for layer, weight in zip([model[0], model[1][0], model[2]], expected, strict=True):
        assert torch.equal(layer.weight, weight)
