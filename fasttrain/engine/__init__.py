"""The engine face: detectron2's and X-modaler's trainers on fasttrain's core."""

from fasttrain.engine import comm, data_keys
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
from fasttrain.engine.losses import RewardCriterion, build_losses
from fasttrain.engine.lr_schedules import build_lr_scheduler
from fasttrain.engine.protocols import DecodingModel, Evaluator, Loss, Scorer, TrainableModel
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    ENGINE_REGISTRY,
    EVALUATION_REGISTRY,
    LOSSES_REGISTRY,
    LR_SCHEDULER_REGISTRY,
    META_ARCH_REGISTRY,
    SCORER_REGISTRY,
    SOLVER_REGISTRY,
    build_engine,
)
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
    "DATASETS_REGISTRY",
    "ENGINE_REGISTRY",
    "EVALUATION_REGISTRY",
    "LOSSES_REGISTRY",
    "LR_SCHEDULER_REGISTRY",
    "META_ARCH_REGISTRY",
    "SCORER_REGISTRY",
    "SOLVER_REGISTRY",
    "AMPTrainer",
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "CfgNode",
    "Checkpointer",
    "CommonMetricPrinter",
    "DecodingModel",
    "DefaultTrainer",
    "EvalHook",
    "Evaluator",
    "EventStorage",
    "EventWriter",
    "HookBase",
    "IterationTimer",
    "JSONWriter",
    "LRScheduler",
    "Loss",
    "ModelWeightsManipulating",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "RLBeamTrainer",
    "RLMeanTrainer",
    "RLTrainer",
    "RetrievalTrainer",
    "RewardCriterion",
    "ScheduledSampling",
    "Scorer",
    "SimpleTrainer",
    "SingleStreamRetrievalTrainer",
    "SingleStreamRetrievalTrainerHardNegatives",
    "TDENPretrainer",
    "TensorboardXWriter",
    "TorchMemoryStats",
    "TorchProfiler",
    "TrainableModel",
    "TrainerBase",
    "VCRTrainer",
    "build_engine",
    "build_losses",
    "build_lr_scheduler",
    "build_optimizer",
    "comm",
    "data_keys",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "get_cfg",
    "get_event_storage",
    "launch",
]
