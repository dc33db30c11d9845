"""Helpers around torch."""

from .collect_env import collect_env
from .misc import has_batch_norm, is_norm
from .parrots_wrapper import TORCH_VERSION
from .setup_env import set_multi_processing

__all__ = ["TORCH_VERSION", "collect_env", "has_batch_norm", "is_norm", "set_multi_processing"]
