"""Batch norms folded into convolutions: the same numbers and gradients, one operation less."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fasttrain.model import efficient_conv_bn_eval as folding


class Backbone(nn.Module):
    def __init__(self, *, bias: bool = True, affine: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=bias)
        self.bn = nn.BatchNorm2d(4, affine=affine)
        self.grouped = nn.Conv2d(4, 6, 1, groups=2, bias=bias)
        self.bn2 = nn.BatchNorm2d(6, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.grouped(self.bn(self.conv(x)).relu()))


class Model(nn.Module):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.backbone = Backbone(**kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))


def pair(x: Tensor, **kwargs: Any) -> tuple[Model, Model]:
    """A model with used statistics, and its folded copy."""
    torch.manual_seed(0)
    plain = Model(**kwargs)
    for _ in range(3):
        plain(x * torch.rand(()))
    folded = copy.deepcopy(plain)
    folding.turn_on_efficient_conv_bn_eval(folded, "backbone")
    return plain, folded


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_outputs_and_gradients_agree(x: Tensor, bias: bool, affine: bool) -> None:
    plain, folded = pair(x, bias=bias, affine=affine)
    for mode in (False, True):
        results = []
        for model in (plain.train(mode), folded.train(mode)):
            model.zero_grad()
            output = model(x)
            (output * output).sum().backward()
            results.append([output, *[param.grad for param in model.parameters()]])
        for mine, theirs in zip(*results, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert plain.state_dict().keys() == folded.state_dict().keys()
    assert torch.equal(plain.backbone.bn.running_var, folded.backbone.bn.running_var)


def test_the_batch_norm_is_not_called_in_eval_mode(x: Tensor) -> None:
    _, folded = pair(x)
    called: list[bool] = []
    folded.backbone.bn.register_forward_hook(lambda module, inputs, output: called.append(True))
    folded.eval()(x)
    assert called == []
    folded.train()(x)
    assert called == [True]


def test_a_copy_is_independent(x: Tensor) -> None:
    plain, folded = pair(x)
    other = copy.deepcopy(folded.eval())
    other.backbone.grouped.weight.data.zero_()
    torch.testing.assert_close(folded(x), plain.eval()(x))


def test_a_convolution_that_others_read_too_is_kept() -> None:
    class Branching(Backbone):
        def forward(self, x: Tensor) -> Tensor:
            middle = self.conv(x)
            return self.bn(middle) + middle

    model = Branching().eval()
    traced = torch.fx.symbolic_trace(model)
    folding.efficient_conv_bn_eval_graph_transform(traced)
    assert [n.op for n in traced.graph.nodes].count("call_module") == 2


def test_missing_modules_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(folding, "print_log", lambda msg, **kwargs: said.append(msg))
    with pytest.raises(AttributeError, match="no attribute 'neck'"):
        folding.turn_on_efficient_conv_bn_eval(Model(), ["backbone", "neck"])
    assert len(said) == 1
    assert said[0].startswith("Enabling `efficient_conv_bn_eval` for backbone")
