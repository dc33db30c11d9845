"""The engine face: detectron2's and X-modaler's trainers on fasttrain's core."""

from fasttrain.engine.checkpointer import Checkpointer
from fasttrain.engine.config import CfgNode
from fasttrain.engine.default_trainer import DefaultTrainer
from fasttrain.engine.defaults import default_argument_parser, default_setup, default_writers
from fasttrain.engine.defaults_cfg import get_cfg
from fasttrain.engine.events import EventStorage, get_event_storage
from fasttrain.engine.hooks import (
    AutogradProfiler,
    BestCheckpointer,
    CallbackHook,
    EvalHook,
    IterationTimer,
    LRScheduler,
    ModelWeightsManipulating,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
    ScheduledSampling,
    TorchMemoryStats,
    TorchProfiler,
)
from fasttrain.engine.launch import launch
from fasttrain.engine.lr_schedules import build_lr_scheduler
from fasttrain.engine.registries import ENGINE_REGISTRY, build_engine
from fasttrain.engine.solver import build_optimizer
from fasttrain.engine.train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from fasttrain.engine.trainers import (
    RetrievalTrainer,
    RLBeamTrainer,
    RLMeanTrainer,
    RLTrainer,
    SingleStreamRetrievalTrainer,
    SingleStreamRetrievalTrainerHardNegatives,
    TDENPretrainer,
    VCRTrainer,
)
from fasttrain.engine.writers import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)

__all__ = [
    "ENGINE_REGISTRY",
    "AMPTrainer",
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "CfgNode",
    "Checkpointer",
    "CommonMetricPrinter",
    "DefaultTrainer",
    "EvalHook",
    "EventStorage",
    "EventWriter",
    "HookBase",
    "IterationTimer",
    "JSONWriter",
    "LRScheduler",
    "ModelWeightsManipulating",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "RLBeamTrainer",
    "RLMeanTrainer",
    "RLTrainer",
    "RetrievalTrainer",
    "ScheduledSampling",
    "SimpleTrainer",
    "SingleStreamRetrievalTrainer",
    "SingleStreamRetrievalTrainerHardNegatives",
    "TDENPretrainer",
    "TensorboardXWriter",
    "TorchMemoryStats",
    "TorchProfiler",
    "TrainerBase",
    "VCRTrainer",
    "build_engine",
    "build_lr_scheduler",
    "build_optimizer",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "get_cfg",
    "get_event_storage",
    "launch",
]
