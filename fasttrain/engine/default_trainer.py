"""DefaultTrainer: everything of a training run built from a config."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fasttrain.core.precision import Precision
from fasttrain.core.update import Updater
from fasttrain.engine import comm, loaders, losses, lr_schedules, solver
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.batches import endless_batches
from fasttrain.engine.checkpointer import Checkpointer
from fasttrain.engine.config import as_config, changed, read
from fasttrain.engine.defaults import default_writers, setup_logger
from fasttrain.engine.ensemble import load_members
from fasttrain.engine.metrics import AsyncMetrics
from fasttrain.engine.model_modes import evaluating, unwrap
from fasttrain.engine.registries import (
    ENGINE_REGISTRY,
    EVALUATION_REGISTRY,
    META_ARCH_REGISTRY,
    SCORER_REGISTRY,
)
from fasttrain.engine.standard_hooks import standard_hooks
from fasttrain.engine.train_loop import HookBase, UpdatingTrainer
from fasttrain.engine.writers import EventWriter

logger = logging.getLogger("fasttrain.engine")


@ENGINE_REGISTRY.register()
class DefaultTrainer(UpdatingTrainer):
    """Builds model, optimizer, loaders, losses, schedule, EMA, checkpointer and hooks of a config.

    A step takes a batch through `model.preprocess_batch`, the model and every loss; the sum of
    the losses whose names lack `acc` is backpropagated. The model offers `preprocess_batch` and
    is called with a dict (see `protocols.TrainableModel`).

    Args:
        cfg: any config with the keys of `get_cfg()`.
    """

    multi_gpu_eval = False  # whether every process takes part in evaluations

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        if not logging.getLogger("fasttrain").hasHandlers():
            setup_logger(None, comm.get_rank())
        self.cfg = cfg = self.auto_scale_workers(as_config(cfg), comm.get_world_size())
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
            accumulate_in_fp32=read(cfg, "SOLVER.ACCUMULATE_IN_FP32", False),
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
        self.restored: list[str] = []
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
        """The model for several processes; itself for one.

        Buffers stay each process's own: the main one's are saved.
        """
        if comm.get_world_size() == 1:
            return model
        device = next(model.parameters()).device
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
        )

    @classmethod
    def build_optimizer(cls, cfg: Any, model: nn.Module) -> Optimizer:
        return solver.build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: Any, optimizer: Optimizer, iters_per_epoch: int) -> Any:
        return lr_schedules.build_lr_scheduler(cfg, optimizer, iters_per_epoch)

    @classmethod
    def build_loader(cls, cfg: Any, name: str, stage: str) -> Any:
        """The loader of the data set called `name`, None without a name."""
        return loaders.build_loader(cfg, name, stage)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        return cls.build_loader(cfg, cfg.DATASETS.TRAIN, "train")

    @classmethod
    def build_val_loader(cls, cfg: Any) -> Any:
        return cls.build_loader(cfg, read(cfg, "DATASETS.VAL", ""), "val")

    @classmethod
    def build_test_loader(cls, cfg: Any) -> Any:
        return cls.build_loader(cfg, read(cfg, "DATASETS.TEST", ""), "test")

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
        self._train_data_loader_iter = self.endless_batches()

    def endless_batches(self, epoch: int = 0) -> Iterator[Any]:
        """The training batches from an epoch's first one on, without end."""
        return endless_batches(self.train_data_loader, epoch)

    def count_iterations(self) -> int:
        """Iterations of one epoch."""
        return len(self.train_data_loader)

    def build_writers(self) -> list[EventWriter]:
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def build_hooks(self) -> list[HookBase | None]:
        """The standard hooks, in the order in which they run (see `standard_hooks`)."""
        return standard_hooks(self)

    # Training.

    def train(self) -> None:  # type: ignore[override]
        """Run from `start_iter` to `max_iter`."""
        super().train(self.start_iter, self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the output folder's newest intact checkpoint, or load weights only.

        Those are `cfg.MODEL.WEIGHTS`, and `cfg.MODEL.ENSEMBLE_WEIGHTS` for the members of a model
        that has some. The log says what was restored, and what the file lacks.
        """
        resumes = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(read(self.cfg, "MODEL.WEIGHTS", ""), resume=resume)
        if not resumes:
            load_members(self.model, read(self.cfg, "MODEL.ENSEMBLE_WEIGHTS", ()))
            return
        if "trainer" not in self.checkpointer.restored:
            logger.warning(
                "The checkpoint holds weights only: training starts at iteration 0 with them"
            )
            return
        self.start_iter = self.iter + 1
        self._train_data_loader_iter = self.endless_batches(self.start_iter // self.iters_per_epoch)
        logger.info("Resumed at iteration %d: %s", self.start_iter, ", ".join(self.restored))

    def next_batch(self) -> Any:
        """The next batch; at the end of the loader the next epoch begins."""
        return next(self._train_data_loader_iter)

    def prepare(self, batch: Any) -> dict[str, Any]:
        """A loader's batch as the model's input."""
        data: dict[str, Any] = unwrap(self.model).preprocess_batch(batch)  # type: ignore[operator]
        data[kfg.SS_PROB] = self.ss_prob
        return data

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        """The model's outputs, in the precision of the run."""
        outputs: dict[str, Any] = self.call_model(data)
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

    def step(self) -> None:
        """One step of the optimizer; the average follows."""
        super().step()
        if self.ema is not None:
            self.ema.update_parameters(unwrap(self.model))

    def run_step(self) -> None:
        """Implement one iteration: batch, forward, losses, update, metrics."""
        batch, data_time = self.fetch()
        self.learn(self.compute_losses(self.forward(self.prepare(batch))), data_time)

    def before_train(self) -> None:
        self.model.train()
        super().before_train()

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

        TRAIN_BATCH_SIZE is one process's, so that the batch of all grows with their number; the
        learning rate grows in proportion. What is counted in epochs stays as it is. Without a
        reference the config itself is returned.
        """
        reference = read(cfg, "SOLVER.REFERENCE_WORLD_SIZE", 0)
        if reference in (0, num_workers):
            return cfg
        return changed(
            cfg,
            {
                "SOLVER.BASE_LR": cfg.SOLVER.BASE_LR * num_workers / reference,
                "SOLVER.REFERENCE_WORLD_SIZE": num_workers,
            },
        )

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["scheduler"] = self.scheduler.state_dict()
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self.restored = ["optimizer", "scheduler"]
        self.restored += [f"hook {name}" for name in state_dict.get("hooks", {})]
        if "grad_scaler" in state_dict:
            self.restored.append("loss scale")
        if self.ema is None:
            return
        if "ema" in state_dict:
            self.ema.load_state_dict(state_dict["ema"])
            self.restored.append("EMA")
        else:
            logger.warning("The checkpoint holds no EMA: it starts anew from the model's weights")
