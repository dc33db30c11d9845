"""Put a model on its device, wrap it for several processes, initialise and compile it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fasttrain import dist
from fasttrain.core.sharding import any_sharded
from fasttrain.core.strategy import SingleDevice
from fasttrain.logging import print_log
from fasttrain.model import (
    BaseModel,
    MMDistributedDataParallel,
    convert_sync_batchnorm,
    is_model_wrapper,
    revert_sync_batchnorm,
)
from fasttrain.registry import MODEL_WRAPPERS


def wrap_model(
    model: nn.Module, wrapper_cfg: dict | None, *, distributed: bool, sync_bn: str | None
) -> nn.Module:
    """Move a model to its device and, in a distributed run, wrap it.

    Args:
        wrapper_cfg: the wrapper's config; MMDistributedDataParallel when None.
        distributed: whether several processes train together.
        sync_bn: 'torch' or 'mmcv' to turn BatchNorm into SyncBatchNorm first.
    """
    if is_model_wrapper(model):
        if wrapper_cfg is not None:
            raise TypeError(
                'model has been wrapped and "model_wrapper_cfg" should be None, but got '
                f"{wrapper_cfg}"
            )
        return model
    model = SingleDevice().prepare(model)
    if not distributed:
        print_log(
            "Distributed training is not used, all SyncBatchNorm (SyncBN) layers in the model "
            "will be automatically reverted to BatchNormXd layers if they are used.",
            logger="current",
            level=logging.INFO,
        )
        return revert_sync_batchnorm(model)
    if sync_bn is not None:
        model = convert_sync_batchnorm(model, sync_bn)
    if wrapper_cfg is None:
        devices = [int(os.environ["LOCAL_RANK"])] if torch.cuda.is_available() else None
        return MMDistributedDataParallel(
            module=model, device_ids=devices, broadcast_buffers=False, find_unused_parameters=False
        )
    options = {"type": "MMDistributedDataParallel", **wrapper_cfg}
    if options["type"] == "MMFullyShardedDataParallel" and dist.get_world_size() > 1:
        raise ValueError(
            "a Runner on several processes cannot initialise, save and resume the flat pieces of "
            "model_wrapper_cfg.type='MMFullyShardedDataParallel' (torch's first FSDP): use "
            "model_wrapper_cfg=dict(type='fully_shard', layers=[...]), torch's successor of it"
        )
    if getattr(MODEL_WRAPPERS.get(options["type"]), "shards", False):
        init_weights(model)
    if torch.cuda.is_available() and options["type"] == "MMDistributedDataParallel":
        options.setdefault("device_ids", [int(os.environ["LOCAL_RANK"])])
    return MODEL_WRAPPERS.build(options, default_args={"module": model})


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a wrapper."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def init_weights(model: nn.Module) -> None:
    """Initialise the weights, and give all ranks those of rank 0.

    A model that is spread over the ranks was initialised before.
    """
    model = unwrapped(model)
    if hasattr(model, "init_weights") and not any_sharded(model.parameters()):
        model.init_weights()  # type: ignore[operator]
        for tensor in model.state_dict().values():
            dist.broadcast(tensor)


def compile_model(model: nn.Module, options: bool | Mapping[str, Any] | None, target: str) -> None:
    """Compile what `target` ('train_step', ...) runs, when the config asks for it.

    That is the model's forward, so that data handling and optimizer step stay outside; a step that
    the user wrote is compiled whole.

    Args:
        options: None or False for no compiling, True, or the arguments of `torch.compile`.
    """
    if not options:
        return
    chosen = {} if isinstance(options, bool) else dict(options)
    if chosen.pop("disable", False):
        return
    model = unwrapped(model)
    own_step = getattr(type(model), target, None) is not getattr(BaseModel, target, None)
    method = target if own_step else "forward"
    if hasattr(getattr(model, method), "_torchdynamo_orig_callable"):
        return
    SingleDevice().compile(model, chosen, method)
    print_log(
        'Model has been "compiled". The first few iterations will be slow, please be patient.',
        logger="current",
        level=logging.INFO,
    )
