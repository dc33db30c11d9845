"""Convolution and evaluating batch norm as one operation that still trains both (tune mode).

A batch norm in eval mode is an affine map, so it folds into the convolution before it:
W' = W * c and b' = beta + c * (b - mean) with c = gamma / sqrt(var + eps), computed on the fly and
differentiable. The activation between the two is neither computed nor kept for the backward.
See https://arxiv.org/abs/2305.11624.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fasttrain.logging import print_log

FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def efficient_conv_bn_eval_forward(bn: _BatchNorm, conv: nn.modules.conv._ConvNd, x: Tensor) -> Any:
    """`bn(conv(x))` for a `bn` in eval mode, by one convolution."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = torch.rsqrt(bn.running_var + bn.eps)
    if bn.weight is not None:
        scale = scale * bn.weight
    shift = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean
    bias = scale * shift if bn.bias is None else bn.bias + scale * shift
    weight = conv.weight * scale.view(-1, *[1] * (conv.weight.dim() - 1))
    return conv._conv_forward(x, weight, bias)  # type: ignore[operator]


def efficient_conv_bn_eval_control(bn: _BatchNorm, conv: nn.modules.conv._ConvNd, x: Tensor) -> Any:
    """`bn(conv(x))`, folded whenever `bn` is in eval mode and has statistics."""
    if bn.training or bn.running_var is None:
        return bn(conv(x))
    return efficient_conv_bn_eval_forward(bn, conv, x)


def efficient_conv_bn_eval_graph_transform(fx_model: fx.GraphModule) -> None:
    """Fold, in a traced model, every batch norm into the convolution that only it reads."""
    modules = dict(fx_model.named_modules())
    for node in list(fx_model.graph.nodes):
        if node.op != "call_module" or not isinstance(modules.get(node.target), _BatchNorm):
            continue
        source = node.args[0]
        if (
            not isinstance(source, fx.Node)
            or source.op != "call_module"
            or not isinstance(modules.get(str(source.target)), FOLDABLE)
            or len(source.users) > 1
        ):
            continue
        with fx_model.graph.inserting_before(node):
            bn = fx_model.graph.get_attr(node.target)
            conv = fx_model.graph.get_attr(str(source.target))
            folded = fx_model.graph.call_function(
                efficient_conv_bn_eval_control, (bn, conv, source.args[0])
            )
        node.replace_all_uses_with(folded)
        fx_model.graph.erase_node(node)
        fx_model.graph.erase_node(source)
    fx_model.graph.lint()
    fx_model.recompile()


def turn_on_efficient_conv_bn_eval_for_single_model(model: nn.Module) -> None:
    """Replace `model.forward` by a traced one with batch norms folded; parameters stay."""
    traced = fx.symbolic_trace(model)
    efficient_conv_bn_eval_graph_transform(traced)
    model.forward = traced.forward  # type: ignore[method-assign]


def turn_on_efficient_conv_bn_eval(model: nn.Module, modules: list[str] | str) -> None:
    """Fold in the submodules of these dotted names; each must be traceable by torch.fx."""
    for name in [modules] if isinstance(modules, str) else modules:
        turn_on_efficient_conv_bn_eval_for_single_model(attrgetter(name)(model))
        print_log(
            f"Enabling `efficient_conv_bn_eval` for {name}: its batch norms fold into convolutions "
            "while they are in eval mode.",
            logger="current",
        )
