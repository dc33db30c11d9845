"""The hooks of the engine face."""

from fasttrain.engine.hooks.checkpointing import BestCheckpointer, PeriodicCheckpointer
from fasttrain.engine.hooks.common import CallbackHook, IterationTimer, LRScheduler, PeriodicWriter
from fasttrain.engine.hooks.evaluation import EvalHook
from fasttrain.engine.hooks.model import ModelWeightsManipulating, ScheduledSampling
from fasttrain.engine.hooks.precise_bn import PreciseBN
from fasttrain.engine.hooks.profiling import AutogradProfiler, TorchMemoryStats, TorchProfiler

__all__ = [
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "ModelWeightsManipulating",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "ScheduledSampling",
    "TorchMemoryStats",
    "TorchProfiler",
]
