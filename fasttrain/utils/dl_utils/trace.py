"""Whether code is being traced."""

from __future__ import annotations

import torch


def is_jit_tracing() -> bool:
    """Whether `torch.jit.trace` runs the calling code."""
    return bool(torch.jit.is_tracing())
