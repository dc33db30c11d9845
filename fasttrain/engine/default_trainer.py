"""DefaultTrainer: everything of a training run built from a config."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fasttrain.core.precision import Precision
from fasttrain.core.update import Updater
from fasttrain.engine import comm, hooks, loaders, losses, lr_schedules, solver
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.checkpointer import Checkpointer, unwrap
from fasttrain.engine.config import read
from fasttrain.engine.defaults import default_writers, setup_logger
from fasttrain.engine.metrics import AsyncMetrics
from fasttrain.engine.registries import (
    ENGINE_REGISTRY,
    EVALUATION_REGISTRY,
    META_ARCH_REGISTRY,
    SCORER_REGISTRY,
)
from fasttrain.engine.train_loop import HookBase, TrainerBase, total_loss
from fasttrain.engine.writers import EventWriter

logger = logging.getLogger("fasttrain.engine")


@ENGINE_REGISTRY.register()
class DefaultTrainer(TrainerBase):
    """Builds model, optimizer, loaders, losses, schedule, EMA, checkpointer and hooks of a config.

    A step takes a batch through `model.preprocess_batch`, the model and every loss; the sum of
    the losses whose names lack `acc` is backpropagated. The model offers `preprocess_batch` and
    is called with a dict (see `protocols.TrainableModel`).

    Args:
        cfg: any config with the keys of `get_cfg()`.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        if not logging.getLogger("fasttrain").hasHandlers():
            setup_logger(None, comm.get_rank())
        self.cfg = cfg
        self.model = self.wrap_model(self.build_model(cfg))
        self.optimizer: Optimizer = self.build_optimizer(cfg, unwrap(self.model))
        self.build_data(cfg)
        self.val_evaluator = self.build_evaluator(cfg, read(cfg, "INFERENCE.VAL_ANNFILE", ""))
        self.test_evaluator = self.build_evaluator(cfg, read(cfg, "INFERENCE.TEST_ANNFILE", ""))
        self.losses = self.build_losses(cfg)
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer, self.iters_per_epoch)
        precision = Precision(read(cfg, "SOLVER.PRECISION", "fp32"))
        self.updater = Updater(
            self.optimizer,
            precision=precision,
            clip=solver.grad_clip(cfg),
            accumulation=read(cfg, "SOLVER.ACCUMULATION", 1),
        )
        self.metrics = AsyncMetrics(read(cfg, "SOLVER.GATHER_METRIC_PERIOD", 1))
        self.ema: AveragedModel | None = None
        if read(cfg, "MODEL.USE_EMA", False):
            self.ema = AveragedModel(
                unwrap(self.model),
                multi_avg_fn=get_ema_multi_avg_fn(cfg.MODEL.EMA_DECAY),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
        self.checkpointer = Checkpointer(self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.EPOCH * self.iters_per_epoch
        self.ss_prob = 0.0
        self.register_hooks(self.build_hooks())

    # What is built, in the order of need; each can be overridden by itself.

    @classmethod
    def build_model(cls, cfg: Any) -> nn.Module:
        """The model of `cfg.MODEL.META_ARCHITECTURE`, on its device.

        Raises:
            TypeError: it lacks `preprocess_batch`.
        """
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
        if not callable(getattr(model, "preprocess_batch", None)):
            raise TypeError(
                f"{type(model).__name__} must have a method preprocess_batch(batched_inputs) that "
                "turns a loader's batch into a dict of tensors"
            )
        model.to(loaders.usable_device(read(cfg, "MODEL.DEVICE", "cuda")))
        return model

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """The model for several processes; itself for one."""
        if comm.get_world_size() == 1:
            return model
        device = next(model.parameters()).device
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[device.index] if device.type == "cuda" else None
        )

    @classmethod
    def build_optimizer(cls, cfg: Any, model: nn.Module) -> Optimizer:
        return solver.build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: Any, optimizer: Optimizer, iters_per_epoch: int) -> Any:
        return lr_schedules.build_lr_scheduler(cfg, optimizer, iters_per_epoch)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        return loaders.build_loader(cfg, cfg.DATASETS.TRAIN, "train")

    @classmethod
    def build_val_loader(cls, cfg: Any) -> Any:
        return loaders.build_loader(cfg, cfg.DATASETS.VAL, "val")

    @classmethod
    def build_test_loader(cls, cfg: Any) -> Any:
        return loaders.build_loader(cfg, cfg.DATASETS.TEST, "test")

    @classmethod
    def build_losses(cls, cfg: Any) -> list[Any]:
        return losses.build_losses(cfg)

    @classmethod
    def build_scorer(cls, cfg: Any) -> Any:
        """The scorer of `cfg.SCORER.NAME`."""
        return SCORER_REGISTRY.get(cfg.SCORER.NAME)(cfg)

    @classmethod
    def build_evaluator(cls, cfg: Any, annfile: str) -> Any:
        """The evaluator of `cfg.INFERENCE.NAME`, None without a name."""
        name = read(cfg, "INFERENCE.NAME", "")
        return EVALUATION_REGISTRY.get(name)(cfg, annfile, cfg.OUTPUT_DIR) if name else None

    def build_data(self, cfg: Any) -> None:
        """The three loaders, and how many iterations make an epoch.

        Raises:
            ValueError: there is no training set, or it gives no batch.
        """
        self.train_data_loader = self.build_train_loader(cfg)
        self.val_data_loader = self.build_val_loader(cfg)
        self.test_data_loader = self.build_test_loader(cfg)
        if self.train_data_loader is None:
            raise ValueError("DATASETS.TRAIN must name a data set, got an empty name")
        self.iters_per_epoch = self.count_iterations()
        if self.iters_per_epoch < 1:
            raise ValueError("the training loader is empty: expected at least one batch")
        self._epoch = 0
        self._batches: Iterator[Any] | None = None

    def count_iterations(self) -> int:
        """Iterations of one epoch."""
        return len(self.train_data_loader)

    def build_writers(self) -> list[EventWriter]:
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def build_hooks(self) -> list[HookBase | None]:
        """The standard hooks, in the order in which they run."""
        cfg, ipe = self.cfg, self.iters_per_epoch
        sampling = cfg.SCHEDULED_SAMPLING
        main = comm.is_main_process()
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            hooks.ScheduledSampling(
                sampling.START_EPOCH,
                sampling.INC_EVERY_EPOCH,
                sampling.INC_PROB,
                sampling.MAX_PROB,
                ipe,
            ),
            hooks.ModelWeightsManipulating(),
            hooks.PeriodicCheckpointer(
                self.checkpointer,
                cfg.SOLVER.CHECKPOINT_PERIOD * ipe,
                max_to_keep=read(cfg, "SOLVER.CHECKPOINT_MAX_TO_KEEP"),
                iters_per_epoch=ipe,
            )
            if main
            else None,
            *self._eval_hooks(),
            hooks.PeriodicWriter(self.build_writers(), cfg.SOLVER.WRITE_PERIOD) if main else None,
        ]

    multi_gpu_eval = False

    def _eval_hooks(self) -> Iterator[HookBase]:
        """For val and test: an evaluation of the model, and one of its average."""
        parts = {
            "val": (self.val_data_loader, self.val_evaluator, "VAL_EVAL_START"),
            "test": (self.test_data_loader, self.test_evaluator, "TEST_EVAL_START"),
        }
        this = weakref.proxy(self)
        for stage, (loader, evaluator, start_key) in parts.items():
            if loader is None:
                continue
            start = read(self.cfg, f"INFERENCE.{start_key}", -1)
            models = [(stage, lambda: this.model)]
            if self.ema is not None:
                models.append((f"{stage}_ema", lambda: this.ema.module))
            for name, model in models:

                def evaluate(
                    epoch: int, model: Any = model, loader: Any = loader, rate: Any = evaluator
                ) -> Any:
                    return this.test(this.cfg, model(), loader, rate, epoch)

                yield hooks.EvalHook(
                    self.cfg.SOLVER.EVAL_PERIOD,
                    start,
                    evaluate,
                    self.iters_per_epoch,
                    name,
                    self.multi_gpu_eval,
                )

    # Training.

    def train(self) -> None:  # type: ignore[override]
        """Run from `start_iter` to `max_iter`."""
        super().train(self.start_iter, self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the output folder's newest checkpoint, or load `cfg.MODEL.WEIGHTS`."""
        found = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(read(self.cfg, "MODEL.WEIGHTS", ""), resume=resume)
        if found:
            self.start_iter = self.iter + 1
            self._epoch = self.start_iter // self.iters_per_epoch
            self.updater.begin(self.start_iter)
            logger.info(
                "Resumed at iteration %d: model, optimizer, schedule%s",
                self.start_iter,
                "" if self.ema is None else ", EMA",
            )

    def next_batch(self) -> Any:
        """The next batch; at the end of the loader the next epoch begins."""
        if self._batches is None:
            self._batches = self._begin_epoch(self.train_data_loader)
        batch = next(self._batches, None)
        if batch is None:
            self._epoch += 1
            self._batches = self._begin_epoch(self.train_data_loader)
            batch = next(self._batches)
        return batch

    def _begin_epoch(self, loader: Any) -> Iterator[Any]:
        set_epoch = getattr(getattr(loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self._epoch)
        return iter(loader)

    def prepare(self, batch: Any) -> dict[str, Any]:
        """A loader's batch as the model's input."""
        data: dict[str, Any] = unwrap(self.model).preprocess_batch(batch)  # type: ignore[operator]
        data[kfg.SS_PROB] = self.ss_prob
        return data

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        """The model's outputs, in the precision of the run."""
        with self.updater.precision.autocast(next(self.model.parameters()).device.type):
            outputs: dict[str, Any] = self.model(data)
        return outputs

    def compute_losses(self, outputs: dict[str, Any]) -> dict[str, Tensor]:
        """Every loss's entries in one dict.

        Raises:
            ValueError: no loss is configured.
        """
        found: dict[str, Tensor] = {}
        for loss in self.losses:
            found.update(loss(outputs))
        if not found:
            raise ValueError("nothing to train on: LOSSES.NAMES names no loss")
        return found

    def update(self, loss_dict: Mapping[str, Tensor]) -> None:
        """Backpropagate the losses, step when due, and move the average along."""
        total, _ = total_loss(loss_dict)
        updater = self.updater
        updater.backward(updater.scale(total))
        if not updater.due:
            return
        updater.step()
        updater.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(unwrap(self.model))

    def run_step(self) -> None:
        """Implement one iteration: batch, forward, losses, update, metrics."""
        assert self.model.training, f"[{type(self).__name__}] model was changed to eval mode!"
        start = time.perf_counter()
        batch = self.next_batch()
        data_time = time.perf_counter() - start
        loss_dict = self.compute_losses(self.forward(self.prepare(batch)))
        self.update(loss_dict)
        self._write_metrics(loss_dict, data_time)

    def _write_metrics(
        self, loss_dict: Mapping[str, Tensor], data_time: float, prefix: str = ""
    ) -> None:
        self.metrics.write(self.storage, loss_dict, data_time, self.iter, prefix)

    def before_train(self) -> None:
        self.model.train()
        super().before_train()

    def after_train(self) -> None:
        self.metrics.drain(self.storage)
        super().after_train()

    # Testing.

    @classmethod
    def test(
        cls, cfg: Any, model: nn.Module, test_data_loader: Iterable[Any], evaluator: Any, epoch: int
    ) -> Any:
        """Evaluate a model: `{ID_KEY: id, VALUE: output}` per sample goes to the evaluator.

        Returns:
            what `evaluator.eval(results, epoch)` returns; the results without an evaluator.
        """
        results = []
        with evaluating(model) as bare:
            for batch in test_data_loader:
                data = bare.preprocess_batch(batch)
                outputs = (
                    bare(data, use_beam_search=True, output_sents=True)
                    if read(cfg, "INFERENCE.GENERATION_MODE", True)
                    else bare(data)
                )
                ids, values = kfg.need(outputs, "the model's outputs", kfg.IDS, kfg.OUTPUT)
                results += [
                    {cfg.INFERENCE.ID_KEY: int(id_), cfg.INFERENCE.VALUE: value}
                    for id_, value in zip(ids, values, strict=True)
                ]
        return results if evaluator is None else evaluator.eval(results, epoch)

    @staticmethod
    def auto_scale_workers(cfg: Any, num_workers: int) -> Any:
        """A config scaled from SOLVER.REFERENCE_WORLD_SIZE to `num_workers` processes.

        Batch size and learning rate grow in proportion, the number of epochs stays; without a
        reference the config itself is returned.
        """
        reference = read(cfg, "SOLVER.REFERENCE_WORLD_SIZE", 0)
        if reference in (0, num_workers):
            return cfg
        scale = num_workers / reference
        scaled = cfg.clone()
        scaled.defrost()
        scaled.DATALOADER.TRAIN_BATCH_SIZE = round(cfg.DATALOADER.TRAIN_BATCH_SIZE * scale)
        scaled.SOLVER.BASE_LR = cfg.SOLVER.BASE_LR * scale
        scaled.SOLVER.REFERENCE_WORLD_SIZE = num_workers
        if cfg.is_frozen():
            scaled.freeze()
        return scaled

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        state["scheduler"] = self.scheduler.state_dict()
        if self.updater.precision.scaler is not None:
            state["grad_scaler"] = self.updater.precision.state_dict()
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self.updater.precision.load_state_dict(state_dict.get("grad_scaler", {}))
        if self.ema is not None and "ema" in state_dict:
            self.ema.load_state_dict(state_dict["ema"])


class evaluating:
    """Context in which the unwrapped model is in eval mode and takes no gradients."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = unwrap(model)

    def __enter__(self) -> Any:
        self._was_training = self._model.training
        self._no_grad = torch.no_grad()
        self._no_grad.__enter__()
        self._model.eval()
        return self._model

    def __exit__(self, *error: object) -> None:
        self._no_grad.__exit__(*error)
        self._model.train(self._was_training)
