"""fully_shard: torch's sharded data parallelism (FSDP2) from a config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fasttrain.core import dist
from fasttrain.model.wrappers.utils import named_dtype
from fasttrain.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module(name="fully_shard")
def build_fully_shard(
    module: nn.Module,
    layers: Sequence[str] = (),
    reshard_after_forward: bool = True,
    param_dtype: str | torch.dtype | None = None,
    reduce_dtype: str | torch.dtype | None = None,
    cpu_offload: bool = False,
) -> nn.Module:
    """Spread a model's parameters, gradients and optimizer states over all processes.

    The model keeps its class and methods. Checkpoints hold whole tensors, as those of any other
    run, and resume on another number of processes too.

    Args:
        module: the model, the same on all processes.
        layers: class names of submodules that are gathered and freed one by one, such as a
            transformer's layers; whatever is in none of them goes together.
        reshard_after_forward: free gathered parameters between forward and backward.
        param_dtype: what gathered parameters are computed in, such as 'bfloat16'; default: as
            they are.
        reduce_dtype: what gradients are reduced in; default: as `param_dtype`.
        cpu_offload: keep the shards in host memory.
    Raises:
        ValueError: no submodule has the class that `layers` names, or a dtype is none of torch's.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
    )

    parts = _named_layers(module, layers)
    precision = MixedPrecisionPolicy(
        param_dtype=_dtype("param_dtype", param_dtype),
        reduce_dtype=_dtype("reduce_dtype", reduce_dtype),
    )
    options: dict[str, Any] = {
        "mesh": init_device_mesh(dist.comm_device().type, (dist.world_size(),)),
        "reshard_after_forward": reshard_after_forward,
        "mp_policy": precision,
        "offload_policy": CPUOffloadPolicy() if cpu_offload else OffloadPolicy(),
    }
    for part in parts:
        fully_shard(part, **options)
    fully_shard(module, **options)
    return module


build_fully_shard.shards = True  # type: ignore[attr-defined]  # weights come first, then it


def _named_layers(module: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The submodules of these classes, the inner ones first."""
    inner = [entry for entry in module.modules() if entry is not module]
    missing = set(names) - {type(entry).__name__ for entry in inner}
    if missing:
        known = sorted({type(entry).__name__ for entry in inner})
        raise ValueError(
            f"layers names {sorted(missing)}, but {type(module).__name__} has submodules of the "
            f"classes {known} only"
        )
    return [entry for entry in reversed(inner) if type(entry).__name__ in names]


def _dtype(name: str, value: str | torch.dtype | None) -> torch.dtype | None:
    if not isinstance(value, str):
        return value
    found = named_dtype(value)
    if found is None:
        raise ValueError(f"{name} must be a dtype such as 'bfloat16', got {value!r}")
    return found
