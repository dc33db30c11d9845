"""The hooks that a DefaultTrainer has by its config, in the order in which they run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fasttrain.engine import comm, hooks
from fasttrain.engine.config import read

if TYPE_CHECKING:
    from fasttrain.engine.default_trainer import DefaultTrainer
    from fasttrain.engine.trainer_base import HookBase


def standard_hooks(trainer: DefaultTrainer) -> list[HookBase | None]:
    """Timer, schedule, sampling, weights, checkpoints, evaluations, best checkpoint, writers."""
    cfg, iters_per_epoch = trainer.cfg, trainer.iters_per_epoch
    main = comm.is_main_process()
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(),
        hooks.ScheduledSampling(
            read(cfg, "SCHEDULED_SAMPLING.START_EPOCH", -1),
            read(cfg, "SCHEDULED_SAMPLING.INC_EVERY_EPOCH", 5),
            read(cfg, "SCHEDULED_SAMPLING.INC_PROB", 0.05),
            read(cfg, "SCHEDULED_SAMPLING.MAX_PROB", 0.25),
            iters_per_epoch,
        ),
        hooks.ModelWeightsManipulating(),
        hooks.PeriodicCheckpointer(
            trainer.checkpointer,
            cfg.SOLVER.CHECKPOINT_PERIOD * iters_per_epoch,
            max_to_keep=read(cfg, "SOLVER.CHECKPOINT_MAX_TO_KEEP"),
            iters_per_epoch=iters_per_epoch,
        )
        if main
        else None,
        *_evaluations(trainer),
        _best_checkpointer(trainer) if main else None,
        hooks.PeriodicWriter(trainer.build_writers(), cfg.SOLVER.WRITE_PERIOD) if main else None,
    ]


def _best_checkpointer(trainer: DefaultTrainer) -> HookBase | None:
    metric = read(trainer.cfg, "SOLVER.BEST_METRIC", "")
    if not metric:
        return None
    return hooks.BestCheckpointer(
        trainer.cfg.SOLVER.EVAL_PERIOD * trainer.iters_per_epoch,
        trainer.checkpointer,
        metric,
        read(trainer.cfg, "SOLVER.BEST_MODE", "max"),
    )


def _evaluations(trainer: DefaultTrainer) -> Iterator[HookBase]:
    """For val and test: an evaluation of the model, and one of its average."""
    this = weakref.proxy(trainer)  # the hooks belong to the trainer: no circle
    for stage in ("val", "test"):
        if getattr(trainer, f"{stage}_data_loader") is None:
            continue
        start = read(trainer.cfg, f"INFERENCE.{stage.upper()}_EVAL_START", -1)
        averages = (False,) if trainer.ema is None else (False, True)
        for of_average in averages:
            yield hooks.EvalHook(
                trainer.cfg.SOLVER.EVAL_PERIOD,
                start,
                _evaluation(this, stage, of_average),
                trainer.iters_per_epoch,
                f"{stage}_ema" if of_average else stage,
                trainer.multi_gpu_eval,
            )


def _evaluation(trainer: Any, stage: str, of_average: bool) -> Any:
    def evaluate(epoch: int) -> Any:
        model = trainer.ema.module if of_average else trainer.model
        loader = getattr(trainer, f"{stage}_data_loader")
        evaluator = getattr(trainer, f"{stage}_evaluator")
        return trainer.test(trainer.cfg, model, loader, evaluator, epoch)

    return evaluate
