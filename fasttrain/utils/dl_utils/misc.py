"""Kinds of layers, images of tensors, and whether mmcv has its compiled operators."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import nn

from .parrots_wrapper import _BatchNorm, _InstanceNorm

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def is_norm(layer: nn.Module, exclude: type | tuple[type, ...] | None = None) -> bool:
    """Whether a layer normalizes.

    Args:
        layer: the layer.
        exclude: classes that do not count.
    """
    if exclude is None:
        exclude = ()
    kinds = exclude if isinstance(exclude, tuple) else (exclude,)
    if not all(isinstance(kind, type) for kind in kinds):
        raise TypeError(
            '"exclude" must be either None or type or a tuple of types, '
            f"but got {type(exclude)}: {exclude}"
        )
    return isinstance(layer, _NORMS) and not isinstance(layer, kinds)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is a batch normalization."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def mmcv_full_available() -> bool:
    """Whether mmcv is installed with its compiled operators."""
    try:
        return importlib.util.find_spec("mmcv._ext") is not None
    except ModuleNotFoundError:
        return False


def tensor2imgs(
    tensor: torch.Tensor,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    to_bgr: bool = True,
) -> list[np.ndarray]:
    """Turn a batch of normalized images into arrays.

    Args:
        tensor: shape [batch, channels, height, width], of 1 or 3 channels.
        mean: that was subtracted, per channel; 0 when None.
        std: that was divided by, per channel; 1 when None.
        to_bgr: reverse the order of the channels, of which there must be three.
    Returns:
        arrays of shape [height, width, channels], float32.
    """
    assert torch.is_tensor(tensor) and tensor.ndim == 4, (
        f"expected a tensor of shape [N, C, H, W], got {getattr(tensor, 'shape', type(tensor))}"
    )
    channels = tensor.size(1)
    assert channels in (1, 3), f"expected images of 1 or 3 channels, got {channels}"
    mean = (0,) * channels if mean is None else mean
    std = (1,) * channels if std is None else std
    assert len(mean) == len(std) == channels, (
        f"expected a mean and a std for each of {channels} channels, got {mean} and {std}"
    )
    assert channels == 3 or not to_bgr, "to_bgr needs images of 3 channels; pass to_bgr=False"
    images = tensor.detach().cpu().float().permute(0, 2, 3, 1).numpy()
    images = images * np.array(std, np.float32) + np.array(mean, np.float32)
    return [np.ascontiguousarray(image[..., ::-1] if to_bgr else image) for image in images]
