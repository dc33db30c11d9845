"""Models wrapped for several processes; they keep train_step, val_step and test_step."""

from fasttrain.model.wrappers.distributed import MMDistributedDataParallel
from fasttrain.model.wrappers.fully_sharded_distributed import MMFullyShardedDataParallel
from fasttrain.model.wrappers.seperate_distributed import MMSeparateDistributedDataParallel
from fasttrain.model.wrappers.utils import is_model_wrapper

__all__ = [
    "MMDistributedDataParallel",
    "MMFullyShardedDataParallel",
    "MMSeparateDistributedDataParallel",
    "is_model_wrapper",
]
