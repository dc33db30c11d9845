"""autocast: torch's autocast with the device chosen by what the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def autocast(
    device_type: str | None = None,
    dtype: torch.dtype | None = None,
    enabled: bool = True,
    cache_enabled: bool | None = None,
) -> Iterator[None]:
    """Run the body under autocast.

    Args:
        device_type: 'cuda' or 'cpu'; by default 'cuda' when there is a device.
        dtype: by default torch's choice for the device (float16 on CUDA, bfloat16 on the CPU).
        enabled: False switches an outer autocast off.
        cache_enabled: whether weights that were cast are kept; by default torch's setting.
    """
    if device_type is None:
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
    if device_type not in ("cuda", "cpu"):
        raise ValueError(
            f"User specified autocast device_type must be cuda or cpu, but got {device_type}"
        )
    if device_type == "cpu":
        dtype = torch.bfloat16 if dtype is None else dtype
        assert dtype == torch.bfloat16, (
            f"In CPU autocast, only support `torch.bfloat16` dtype, but got {dtype}"
        )
    with torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled):
        yield
