"""Operations of torch that changed their meaning between releases."""

from __future__ import annotations

import torch


def torch_meshgrid(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Grids of coordinates, the first tensor along the rows."""
    grids: tuple[torch.Tensor, ...] = torch.meshgrid(*tensors, indexing="ij")
    return grids
