"""Memory layouts and element types that the native passes take."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPE_NAMES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a block of memory without gaps or overlaps, in any order."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def dense_like(tensor: Tensor, like: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` with the memory layout of `like`; itself when it has it."""
    if tensor.dtype is dtype and tensor.stride() == like.stride() and tensor.device == like.device:
        return tensor
    return torch.empty_like(like, dtype=dtype, requires_grad=False).copy_(tensor)
