"""Small tools around models: batches, dicts of losses, batch norms, unused parameters."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fasttrain.logging import print_log


def run_forward(model: nn.Module, data: dict | tuple | list, mode: str) -> Any:
    """Call `model` with a preprocessed batch spread over its arguments."""
    if isinstance(data, dict):
        return model(**data, mode=mode)
    if isinstance(data, list | tuple):
        return model(*data, mode=mode)
    raise TypeError(
        f"Output of `data_preprocessor` should be list, tuple or dict, but got {type(data)}"
    )


def padded_size(size: int, divisor: int) -> int:
    """The smallest multiple of `divisor` that holds `size`."""
    return -(-size // divisor) * divisor


def stack_batch(
    tensor_list: list[Tensor], pad_size_divisor: int = 1, pad_value: int | float = 0
) -> Tensor:
    """Stack tensors of different sizes, padded at the end of every dimension but the first.

    Args:
        tensor_list: tensors with the same first dimension and number of dimensions.
        pad_size_divisor: sizes are padded to a multiple of it.
        pad_value: what is padded.
    """
    assert isinstance(tensor_list, list), (
        f"Expected input type to be list, but got {type(tensor_list)}"
    )
    assert tensor_list, "`tensor_list` could not be an empty list"
    ndims = [tensor.ndim for tensor in tensor_list]
    assert len(set(ndims)) == 1, (
        f"Expected the dimensions of all tensors must be the same, but got {ndims}"
    )
    shapes = {tuple(tensor.shape[1:]) for tensor in tensor_list}
    target = [padded_size(max(sizes), pad_size_divisor) for sizes in zip(*shapes, strict=True)]
    channels = {tensor.shape[0] for tensor in tensor_list}
    if shapes == {tuple(target)} or len(channels) > 1:
        return torch.stack(tensor_list)  # refuses different channels
    batch = tensor_list[0].new_full((len(tensor_list), *channels, *target), pad_value)
    for number, tensor in enumerate(tensor_list):
        batch[number][tuple(slice(size) for size in tensor.shape)] = tensor
    return batch


def detect_anomalous_params(loss: Tensor, model: nn.Module) -> None:
    """Log every trainable parameter of `model` that `loss` does not depend on."""
    used: set[Any] = set()
    seen: set[Any] = set()
    pending = [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            used.add(node.variable)
        pending += [parent for parent, _ in node.next_functions]
    for name, param in model.named_parameters():
        if param.requires_grad and param not in used:
            print_log(
                f"{name} with shape {param.size()} is not in the computational graph \n",
                logger="current",
                level=logging.ERROR,
            )


def merge_dict(*args: dict) -> dict:
    """One dict of all; a later one wins."""
    merged: dict = {}
    for arg in args:
        assert isinstance(arg, dict), (
            f"all arguments of merge_dict should be a dict, but got {type(arg)}"
        )
        merged.update(arg)
    return merged


class _BatchNormXd(_BatchNorm):
    """A batch norm for inputs of any number of dimensions, as SyncBatchNorm takes them."""

    def _check_input_dim(self, input: Tensor) -> None:
        return


def revert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every SyncBatchNorm by a plain batch norm of the same weights and statistics."""
    replacement = module
    if isinstance(module, nn.SyncBatchNorm):
        replacement = _BatchNormXd(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        replacement.__dict__.update(
            {
                name: value
                for name, value in vars(module).items()
                if name not in ("process_group", "_modules")
            }
        )
    for name, child in module.named_children():
        reverted = revert_sync_batchnorm(child)
        if reverted is not child:
            replacement.add_module(name, reverted)
    return replacement


def convert_sync_batchnorm(module: nn.Module, implementation: str = "torch") -> nn.Module:
    """Replace every batch norm by a synchronized one.

    Args:
        module: the model.
        implementation: 'torch' or 'mmcv', which must be installed then.
    """
    if implementation == "torch":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if implementation != "mmcv":
        raise ValueError(f'sync_bn should be "torch" or "mmcv", but got {implementation}')
    from mmcv.ops import SyncBatchNorm

    if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
        return _to_mmcv_sync_batchnorm(module, SyncBatchNorm)
    for name, child in module.named_children():
        converted = convert_sync_batchnorm(child, implementation)
        if converted is not child:
            module.add_module(name, converted)
    return module


def _to_mmcv_sync_batchnorm(module: _BatchNorm, sync_batchnorm: type[nn.Module]) -> nn.Module:
    converted = sync_batchnorm(
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
    )
    converted.load_state_dict(module.state_dict())
    for mine, theirs in zip(converted.parameters(), module.parameters(), strict=True):
        mine.data, mine.requires_grad = theirs.data, theirs.requires_grad
    return converted.train(module.training).to(
        next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    )
