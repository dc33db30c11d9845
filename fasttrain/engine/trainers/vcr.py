"""VCRTrainer: two tasks with a loader each, trained in turn and rated together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from fasttrain.engine import data_keys as kfg
from fasttrain.engine import loaders
from fasttrain.engine.default_trainer import DefaultTrainer, evaluating
from fasttrain.engine.registries import ENGINE_REGISTRY

TASKS = ("VCR_Q-A", "VCR_QA-R")


@ENGINE_REGISTRY.register()
class VCRTrainer(DefaultTrainer):
    """One step per task and iteration: choose the answer, then its rationale.

    `DATASETS.TRAIN` and `DATASETS.VAL` name a data set that is built twice, for the stages
    `"train;VCR_Q-A"` and `"train;VCR_QA-R"`. The model returns `U_LOGITS`, viewed as
    [B, SEQ_PER_SAMPLE], with `U_TARGET_IDS` [B] (in training) and `IDS`.
    """

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        return cls._pair(cfg, cfg.DATASETS.TRAIN, "train")

    @classmethod
    def build_val_loader(cls, cfg: Any) -> Any:
        return cls._pair(cfg, cfg.DATASETS.VAL, "val")

    @classmethod
    def _pair(cls, cfg: Any, name: str, stage: str) -> list[Any] | None:
        if not name:
            return None
        return [loaders.build_loader(cfg, name, f"{stage};{task}") for task in TASKS]

    def count_iterations(self) -> int:
        return len(self.train_data_loader[0])

    def build_data(self, cfg: Any) -> None:
        super().build_data(cfg)
        self._iterators: list[Iterator[Any] | None] = [None] * len(TASKS)

    def next_batch_of(self, task: int) -> Any:
        """The next batch of a task; its loader is started again when it ends."""
        loader, iterator = self.train_data_loader[task], self._iterators[task]
        batch = None if iterator is None else next(iterator, None)
        if batch is None:
            if iterator is not None and task == 0:
                self._epoch += 1
            iterator = self._iterators[task] = self._begin_epoch(loader)
            batch = next(iterator)
        return batch

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return self._by_question(super().forward(data), self.cfg)

    @staticmethod
    def _by_question(outputs: dict[str, Any], cfg: Any) -> dict[str, Any]:
        (logits,) = kfg.need(outputs, "the model's outputs", kfg.U_LOGITS)
        return {**outputs, kfg.U_LOGITS: logits.reshape(-1, cfg.DATALOADER.SEQ_PER_SAMPLE)}

    def run_step(self) -> None:
        """One update for each task."""
        assert self.model.training, f"[{type(self).__name__}] model was changed to eval mode!"
        for task, name in enumerate(TASKS):
            start = time.perf_counter()
            batch = self.next_batch_of(task)
            data_time = time.perf_counter() - start
            loss_dict = self.compute_losses(self.forward(self.prepare(batch)))
            self.update(loss_dict)
            self._write_metrics(loss_dict, data_time, f"{name}/" if task else "")

    @classmethod
    def test(
        cls, cfg: Any, model: nn.Module, test_data_loader: Iterable[Any], evaluator: Any, epoch: int
    ) -> Any:
        """`evaluator.eval([answers, rationales], epoch)`: per task, a choice for every question."""
        results = []
        with evaluating(model) as bare:
            for loader in test_data_loader:
                found = []
                for batch in loader:
                    outputs = cls._by_question(bare(bare.preprocess_batch(batch)), cfg)
                    (ids,) = kfg.need(outputs, "the model's outputs", kfg.IDS)
                    choices = torch.argmax(outputs[kfg.U_LOGITS], -1).tolist()  # sync point
                    found += [
                        {cfg.INFERENCE.ID_KEY: int(id_), cfg.INFERENCE.VALUE: choice}
                        for id_, choice in zip(ids, choices, strict=True)
                    ]
                results.append(found)
        return results if evaluator is None else evaluator.eval(results, epoch)
