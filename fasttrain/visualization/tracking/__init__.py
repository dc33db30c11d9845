"""Writers for tracking services; each needs its package only when it is used."""

from .aim import AimVisBackend
from .clearml import ClearMLVisBackend
from .dvclive import DVCLiveVisBackend
from .mlflow import MLflowVisBackend
from .neptune import NeptuneVisBackend
from .wandb import WandbVisBackend

__all__ = [
    "AimVisBackend",
    "ClearMLVisBackend",
    "DVCLiveVisBackend",
    "MLflowVisBackend",
    "NeptuneVisBackend",
    "WandbVisBackend",
]
