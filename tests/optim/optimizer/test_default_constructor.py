"""Settings for each parameter: which key counts for which parameter."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import DefaultOptimWrapperConstructor, OptimWrapper
from fasttrain.optim.optimizer import default_constructor

LR, DECAY = 0.1, 0.01


class Deformable(nn.Module):
    """Stands in for mmcv's deformable convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2, 1, 1))
        self.bias = nn.Parameter(torch.ones(2))
        self.conv_offset = nn.Conv2d(2, 2, 1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.conv = nn.Conv2d(3, 4, 1)
        self.depthwise = nn.Conv2d(4, 4, 1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm(4)
        self.instance_norm = nn.InstanceNorm2d(4, affine=True)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4))
        self.frozen = nn.Linear(1, 1)
        self.frozen.weight.requires_grad_(False)
        self.deformable = Deformable()


NORMS = ("norm.", "layer_norm.", "instance_norm.", "head.1.")


@pytest.fixture
def mmcv(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = types.ModuleType("mmcv.ops")
    operators.DeformConv2d = Deformable  # type: ignore[attr-defined]
    operators.ModulatedDeformConv2d = type("Other", (nn.Module,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmcv.ops", operators)


def settings(paramwise_cfg: Any, model: nn.Module | None = None) -> dict[str, tuple[float, float]]:
    """Name -> (lr, weight decay) of each parameter, in order."""
    model = model or Model()
    cfg = {"optimizer": {"type": "SGD", "lr": LR, "weight_decay": DECAY}}
    wrapper = DefaultOptimWrapperConstructor(cfg, paramwise_cfg)(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        assert len(group["params"]) == 1
        found[names[id(group["params"][0])]] = (group["lr"], group["weight_decay"])
    return found


def expected(**multipliers: Any) -> dict[str, tuple[float, float]]:
    """What `rule(name) -> (lr multiplier, decay multiplier)` gives for each trainable parameter."""
    rule = multipliers["rule"]
    return {
        name: (pytest.approx(LR * rule(name)[0]), pytest.approx(DECAY * rule(name)[1]))
        for name, parameter in Model().named_parameters()
        if parameter.requires_grad
    }


def test_without_settings_all_parameters_are_one_group() -> None:
    model = Model()
    cfg = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": LR}}
    wrapper = DefaultOptimWrapperConstructor(cfg)(model)
    assert type(wrapper) is OptimWrapper
    (group,) = wrapper.optimizer.param_groups
    assert group["params"] == list(model.parameters())
    assert cfg == {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": LR}}


def test_bias() -> None:
    def rule(name: str) -> tuple[float, float]:
        if not name.endswith("bias"):
            return 1, 1
        return (1 if name.startswith(NORMS) else 2), 3

    assert settings({"bias_lr_mult": 2, "bias_decay_mult": 3}) == expected(rule=rule)


def test_norm_comes_before_bias() -> None:
    def rule(name: str) -> tuple[float, float]:
        return 1, 0 if name.startswith(NORMS) else 3 if name.endswith("bias") else 1

    assert settings({"norm_decay_mult": 0, "bias_decay_mult": 3}) == expected(rule=rule)


def test_bias_comes_before_depthwise() -> None:
    def rule(name: str) -> tuple[float, float]:
        return 1, 3 if name.endswith("bias") else 0.5 if name.startswith("depthwise") else 1

    assert settings({"dwconv_decay_mult": 0.5, "bias_decay_mult": 3}) == expected(rule=rule)


def test_flat_is_what_is_left_with_one_dimension() -> None:
    def rule(name: str) -> tuple[float, float]:
        flat = name == "scale" or name.endswith("bias") or name.startswith(NORMS)
        return 1, 0.5 if name.startswith("depthwise") else 0 if flat else 1

    assert settings({"dwconv_decay_mult": 0.5, "flat_decay_mult": 0}) == expected(rule=rule)


def test_deformable_offsets(mmcv: None) -> None:
    def rule(name: str) -> tuple[float, float]:
        if name.startswith("deformable.conv_offset"):
            return 0.1, 1
        return (2 if name.endswith("bias") and not name.startswith(NORMS) else 1), (
            3 if name.endswith("bias") else 1
        )

    cfg = {"dcn_offset_lr_mult": 0.1, "bias_lr_mult": 2, "bias_decay_mult": 3}
    assert settings(cfg) == expected(rule=rule)


def test_longest_custom_key_counts_and_nothing_else() -> None:
    def rule(name: str) -> tuple[float, float]:
        if name.startswith("head.0"):
            return 5, 0
        if name.startswith("head"):
            return 10, 1
        return (2 if name.endswith("bias") and not name.startswith(NORMS) else 1), 1

    custom = {"head": {"lr_mult": 10}, "head.0": {"lr_mult": 5, "decay_mult": 0}}
    assert settings({"custom_keys": custom, "bias_lr_mult": 2}) == expected(rule=rule)


def test_custom_keys_of_one_length_are_tried_in_order() -> None:
    model = nn.Module()
    model.ab = nn.Linear(1, 1, bias=False)
    custom = {"b.": {"lr_mult": 3}, "ab": {"lr_mult": 2}}
    assert settings({"custom_keys": custom}, model) == {"ab.weight": (LR * 2, DECAY)}


def test_custom_settings_are_taken_over() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    cfg = {"optimizer": {"type": "SGD", "lr": LR, "momentum": 0.9}}
    custom = {"custom_keys": {"bias": {"momentum": 0.5, "lr_mult": 3}}}
    wrapper = DefaultOptimWrapperConstructor(cfg, custom)(model)
    groups = wrapper.optimizer.param_groups
    assert [group["momentum"] for group in groups] == [0.9, 0.5]
    assert [group.get("lr_mult") for group in groups] == [None, 3]
    assert custom == {"custom_keys": {"bias": {"momentum": 0.5, "lr_mult": 3}}}


def test_frozen_parameters_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(default_constructor, "print_log", lambda text, **kwargs: said.append(text))
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[0].weight.requires_grad_(False)
    assert list(settings({"norm_decay_mult": 0}, model)) == ["1.weight"]
    assert said == ["0.weight is skipped since its requires_grad=False"]


@pytest.mark.parametrize("paramwise", [{"bias_lr_mult": 2}, {"custom_keys": {"0": {"lr_mult": 2}}}])
def test_a_multiplied_lr_must_be_given(paramwise: dict[str, Any]) -> None:
    constructor = DefaultOptimWrapperConstructor({"optimizer": {"type": "SGD"}}, paramwise)
    with pytest.raises(ValueError, match=r"base_lr should not be None.*add lr to it"):
        constructor(nn.Sequential(nn.Linear(1, 1)))


def test_an_unused_lr_multiplier_needs_no_lr() -> None:
    cfg = {"optimizer": {"type": "SGD"}}
    wrapper = DefaultOptimWrapperConstructor(cfg, {"dcn_offset_lr_mult": 2})(nn.Linear(1, 1))
    assert wrapper.get_lr()["lr"] == [0.001, 0.001]


def shared_model() -> nn.Module:
    first = nn.Linear(2, 2, bias=False)
    second = nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    return nn.Sequential(first, second)


def test_duplicates_are_refused_or_bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(default_constructor, "print_log", lambda text, **kwargs: said.append(text))
    with pytest.raises(ValueError, match="appear in more than one parameter group"):
        settings({"bias_lr_mult": 2}, shared_model())
    assert settings({"bypass_duplicate": True}, shared_model()) == {"0.weight": (LR, DECAY)}
    assert said == ["1.weight is duplicate. It is skipped since bypass_duplicate=True"]


def test_settings_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(default_constructor, "print_log", lambda text, **kwargs: said.append(text))
    settings({"bias_lr_mult": 2, "flat_decay_mult": 0}, nn.Sequential(nn.Linear(1, 1)))
    assert said == [
        "paramwise_options -- 0.bias:lr=0.2",
        "paramwise_options -- 0.bias:weight_decay=0.0",
    ]


def test_a_wrapped_model_is_unwrapped() -> None:
    wrapping = nn.Module()
    wrapping.module = nn.Linear(1, 1)
    cfg = {"optimizer": {"type": "SGD", "lr": LR}}
    wrapper = DefaultOptimWrapperConstructor(cfg, {"custom_keys": {"module": {"lr_mult": 9}}})(
        wrapping
    )
    assert wrapper.get_lr()["lr"] == [LR, LR]


def test_first_argument_may_have_another_name() -> None:
    class Named(torch.optim.SGD):
        def __init__(self, parameters: Any, lr: float) -> None:
            super().__init__(parameters, lr=lr)

    model = nn.Linear(1, 1)
    wrapper = DefaultOptimWrapperConstructor({"optimizer": {"type": Named, "lr": LR}})(model)
    assert isinstance(wrapper.optimizer, Named)
    assert wrapper.optimizer.param_groups[0]["params"] == list(model.parameters())


@pytest.mark.parametrize(
    ("cfg", "paramwise", "error", "text"),
    [
        ([], None, TypeError, "optimizer_cfg should be a dict, but got <class 'list'>"),
        ({}, None, AssertionError, 'must contain "optimizer" config'),
        ({"optimizer": 1}, None, TypeError, "should be a dict, but got <class 'int'>"),
        (None, [1], TypeError, "paramwise_cfg should be None or a dict, but got <class 'list'>"),
        (
            None,
            {"custom_keys": []},
            TypeError,
            "custom_keys must be a dict, but got <cl",
        ),
        (None, {"bias_decay_mult": 1}, ValueError, "base_wd should not be None.*add weight_decay"),
        (None, {"norm_decay_mult": 1}, ValueError, "base_wd should not be None"),
        (None, {"dwconv_decay_mult": 1}, ValueError, "base_wd should not be None"),
        (None, {"custom_keys": {"a": {"decay_mult": 1}}}, ValueError, "base_wd should not be None"),
    ],
)
def test_bad_configs(cfg: Any, paramwise: Any, error: type[Exception], text: str) -> None:
    if cfg is None:
        cfg = {"optimizer": {"type": "SGD", "lr": 0.1}}
    with pytest.raises(error, match=text):
        DefaultOptimWrapperConstructor(cfg, paramwise)


def test_an_ignored_setting_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(default_constructor, "print_log", lambda text, **kwargs: said.append(text))
    cfg = {"optimizer": {"type": "AdamW", "lr": LR}}
    wrapper = DefaultOptimWrapperConstructor(cfg, {"flat_decay_mult": 0})(nn.Linear(1, 1))
    assert [group["weight_decay"] for group in wrapper.optimizer.param_groups] == [0.01, 0.01]
    assert said == ["flat_decay_mult is ignored: the optimizer's config does not give weight_decay"]
