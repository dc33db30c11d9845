"""Models wrapped for several processes; they keep train_step, val_step and test_step.

`MMFullyShardedDataParallel` is imported when it is first asked for: torch's FSDP takes half a
second, and few runs use it.
"""

from typing import Any

from fasttrain.model.wrappers.distributed import MMDistributedDataParallel
from fasttrain.model.wrappers.fully_shard import build_fully_shard
from fasttrain.model.wrappers.seperate_distributed import MMSeparateDistributedDataParallel
from fasttrain.model.wrappers.utils import is_model_wrapper
from fasttrain.registry import MODEL_WRAPPERS

__all__ = [
    "MMDistributedDataParallel",
    "MMFullyShardedDataParallel",
    "MMSeparateDistributedDataParallel",
    "build_fully_shard",
    "is_model_wrapper",
]


@MODEL_WRAPPERS.register_module(name="MMFullyShardedDataParallel")
def build_fully_sharded(*args: Any, **kwargs: Any) -> Any:
    """Build one; importing its module registers the class in the place of this function."""
    from fasttrain.model.wrappers.fully_sharded_distributed import MMFullyShardedDataParallel

    return MMFullyShardedDataParallel(*args, **kwargs)


def __getattr__(name: str) -> Any:
    if name == "MMFullyShardedDataParallel":
        from fasttrain.model.wrappers.fully_sharded_distributed import MMFullyShardedDataParallel

        return MMFullyShardedDataParallel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
