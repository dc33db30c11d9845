"""The root registries; downstream packages hang theirs below these."""

from __future__ import annotations

from typing import Any

from .build_functions import (
    build_model_from_cfg,
    build_optimizer_from_cfg,
    build_runner_from_cfg,
    build_scheduler_from_cfg,
)
from .registry import Registry

SCOPE = "mmengine"


def _root(name: str, *rooms: str, **kwargs: Any) -> Registry:
    """A root registry whose modules live in the given rooms, imported at the first look-up."""
    return Registry(name, scope=SCOPE, locations=[f"fasttrain.{room}" for room in rooms], **kwargs)


# Runners, loops and what goes round with them.
RUNNERS = _root("runner", "runner", build_func=build_runner_from_cfg)
RUNNER_CONSTRUCTORS = _root("runner constructor", "runner")
LOOPS = _root("loop", "runner")
HOOKS = _root("hook", "hooks")
LOG_PROCESSORS = _root("log_processor", "runner")
STRATEGIES = _root("strategy")

# Data.
DATASETS = _root("dataset", "dataset")
DATA_SAMPLERS = _root("data sampler", "dataset")
TRANSFORMS = _root("transform")
FUNCTIONS = _root("function", "dataset")

# Models.
MODELS = _root("model", "model", build_func=build_model_from_cfg)
MODEL_WRAPPERS = _root("model_wrapper", "model")
WEIGHT_INITIALIZERS = _root("weight initializer", "model")

# Optimization.
OPTIMIZERS = _root("optimizer", "optim", build_func=build_optimizer_from_cfg)
OPTIM_WRAPPERS = _root("optim_wrapper", "optim")
OPTIM_WRAPPER_CONSTRUCTORS = _root("optimizer wrapper constructor", "optim")
PARAM_SCHEDULERS = _root("parameter scheduler", "optim", build_func=build_scheduler_from_cfg)

# Evaluation and what a user sees.
METRICS = _root("metric", "evaluator")
EVALUATOR = _root("evaluator", "evaluator")
TASK_UTILS = _root("task util")
VISUALIZERS = _root("visualizer", "visualization")
VISBACKENDS = _root("vis_backend", "visualization")
INFERENCERS = _root("inferencer")
