"""The registry of optimizers, and building a wrapper from a config."""

from __future__ import annotations

import copy
import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.core import fused
from fasttrain.optim import (
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIMIZERS,
    AmpOptimWrapper,
    DefaultOptimWrapperConstructor,
    OptimWrapper,
    build_optim_wrapper,
)
from fasttrain.optim.optimizer import builder


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The registry's content, restored afterwards."""
    content = dict(OPTIMIZERS.module_dict)
    monkeypatch.setattr(OPTIMIZERS, "_module_dict", content)
    return content


def test_every_optimizer_of_torch_is_there() -> None:
    for name, value in vars(torch.optim).items():
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer):
            registered = OPTIMIZERS.get("TorchAdafactor" if name == "Adafactor" else name)
            assert issubclass(registered, value)
            assert name in builder.TORCH_OPTIMIZERS or name == "Adafactor"


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Lion", "LAMB"])
def test_fused_optimizers_take_the_usual_names(name: str) -> None:
    assert OPTIMIZERS.get(name) is getattr(fused, name)


def test_fused_false_trains_as_torch_bit_for_bit() -> None:
    weights = []
    for cfg in (
        {"type": "AdamW", "lr": 0.1, "fused": False},
        {"type": torch.optim.AdamW, "lr": 0.1},
    ):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        wrapper = build_optim_wrapper(model, {"optimizer": cfg, "clip_grad": {"max_norm": 0.1}})
        for _ in range(5):
            wrapper.update_params(model(torch.ones(2, 3)).square().sum())
        weights.append(model.weight)
    assert torch.equal(*weights)


def test_registering_again_changes_nothing(registry: dict[str, Any]) -> None:
    before = dict(registry)
    assert builder.register_torch_optimizers() == builder.TORCH_OPTIMIZERS
    assert builder.register_fused_optimizers() == builder.FUSED_OPTIMIZERS
    assert registry == before


@pytest.mark.parametrize(
    ("register", "module", "name"),
    [
        (builder.register_dadaptation_optimizers, "dadaptation", "DAdaptAdam"),
        (builder.register_sophia_optimizers, "Sophia", "SophiaG"),
        (builder.register_bitsandbytes_optimizers, "bitsandbytes.optim", "AdamW8bit"),
        (builder.register_transformers_optimizers, "transformers", "Adafactor"),
    ],
)
def test_optional_packages(
    register: Any,
    module: str,
    name: str,
    registry: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = module.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    stand_in = types.ModuleType(module)
    monkeypatch.setitem(sys.modules, module, stand_in)
    assert name in register()

    class Own(torch.optim.SGD):
        pass

    setattr(stand_in, name, Own)
    model = nn.Linear(1, 1)
    wrapper = build_optim_wrapper(model, {"optimizer": {"type": name, "lr": 0.5}})
    assert type(wrapper.optimizer) is Own
    assert wrapper.get_lr() == {"lr": [0.5]}


def test_missing_packages_register_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_is_installed", lambda package: False)
    for register in (
        builder.register_torch_npu_optimizers,
        builder.register_dadaptation_optimizers,
        builder.register_lion_optimizers,
        builder.register_sophia_optimizers,
        builder.register_bitsandbytes_optimizers,
        builder.register_transformers_optimizers,
    ):
        assert register() == []


def test_another_lion_does_not_replace_ours(
    registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "_is_installed", lambda package: True)
    assert builder.register_lion_optimizers() == ["Lion"]
    assert registry["Lion"] is fused.Lion


def test_builds_from_a_config_and_leaves_it() -> None:
    cfg = {
        "type": "AmpOptimWrapper",
        "optimizer": {"type": "SGD", "lr": 0.1},
        "accumulative_counts": 2,
        "paramwise_cfg": {"bias_lr_mult": 2},
        "constructor": "DefaultOptimWrapperConstructor",
    }
    before = copy.deepcopy(cfg)
    wrapper = build_optim_wrapper(nn.Linear(1, 1), cfg)
    assert type(wrapper) is AmpOptimWrapper
    assert wrapper._accumulative_counts == 2
    assert wrapper.get_lr() == {"base_lr": [0.1], "lr": [0.1, 0.2]}
    assert cfg == before


def test_own_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(DefaultOptimWrapperConstructor):
        def __call__(self, model: nn.Module) -> OptimWrapper:
            self.optimizer_cfg = {**self.optimizer_cfg, "lr": 7.0}
            return super().__call__(model)

    constructors = {**OPTIM_WRAPPER_CONSTRUCTORS.module_dict, "Own": Own}
    monkeypatch.setattr(OPTIM_WRAPPER_CONSTRUCTORS, "_module_dict", constructors)
    cfg = {"optimizer": {"type": "SGD", "lr": 0.1}, "constructor": "Own"}
    assert build_optim_wrapper(nn.Linear(1, 1), cfg).get_lr() == {"lr": [7.0]}


def test_unknown_type_names_the_nearest() -> None:
    with pytest.raises(
        KeyError, match=r"AdamWW is not in the .* nearest registered names: .*AdamW"
    ):
        build_optim_wrapper(nn.Linear(1, 1), {"optimizer": {"type": "AdamWW", "lr": 0.1}})
    with pytest.raises(KeyError, match="OptimWraper is not in the"):
        build_optim_wrapper(
            nn.Linear(1, 1), {"type": "OptimWraper", "optimizer": {"type": "SGD", "lr": 0.1}}
        )
    with pytest.raises(KeyError, match='must contain the key "type"'):
        build_optim_wrapper(nn.Linear(1, 1), {"optimizer": {"lr": 0.1}})
