"""What the runner builds its parts with: free functions of plain arguments."""

from .dataloader import build_dataloader
from .model import compile_model, init_weights, wrap_model
from .optim import (
    build_optim_wrapper,
    build_schedulers,
    scale_lr,
    schedulers_of_config,
)
from .parts import build_evaluator, build_loop, build_part

__all__ = [
    "build_dataloader",
    "build_evaluator",
    "build_loop",
    "build_optim_wrapper",
    "build_part",
    "build_schedulers",
    "compile_model",
    "init_weights",
    "scale_lr",
    "schedulers_of_config",
    "wrap_model",
]
