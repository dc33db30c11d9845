"""VCRTrainer: two tasks with a loader each, trained in turn and rated together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from fasttrain.engine import data_keys as kfg
from fasttrain.engine import loaders
from fasttrain.engine.batches import endless_batches
from fasttrain.engine.default_trainer import DefaultTrainer
from fasttrain.engine.model_modes import evaluating
from fasttrain.engine.registries import ENGINE_REGISTRY

TASKS = ("VCR_Q-A", "VCR_QA-R")


@ENGINE_REGISTRY.register()
class VCRTrainer(DefaultTrainer):
    """One step per task and iteration: choose the answer, then its rationale.

    `DATASETS.TRAIN`, `.VAL` and `.TEST` name data sets that are built twice, for the stages
    `"train;VCR_Q-A"` and `"train;VCR_QA-R"`. The model returns `U_LOGITS`, viewed as
    [B, SEQ_PER_SAMPLE], with `U_TARGET_IDS` [B] (in training) and `IDS`.
    """

    updates_per_iter = len(TASKS)

    @classmethod
    def build_loader(cls, cfg: Any, name: str, stage: str) -> Any:
        """One loader per task, None without a name."""
        if not name:
            return None
        return [loaders.build_loader(cfg, name, f"{stage};{task}") for task in TASKS]

    def count_iterations(self) -> int:
        return len(self.train_data_loader[0])

    def endless_batches(self, epoch: int = 0) -> Iterator[Any]:
        """A batch of each task at a time; each loader is started again when it ends."""
        return zip(
            *(endless_batches(loader, epoch) for loader in self.train_data_loader), strict=True
        )

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return self._by_question(super().forward(data), self.cfg)

    @staticmethod
    def _by_question(outputs: dict[str, Any], cfg: Any) -> dict[str, Any]:
        (logits,) = kfg.need(outputs, "the model's outputs", kfg.U_LOGITS)
        return {**outputs, kfg.U_LOGITS: logits.reshape(-1, cfg.DATALOADER.SEQ_PER_SAMPLE)}

    def run_step(self) -> None:
        """One update for each task."""
        batches, data_time = self.fetch()
        self.learn(self.compute_losses(self.forward(self.prepare(batches[0]))), data_time)
        for task, batch in zip(TASKS[1:], batches[1:], strict=True):
            self.learn(self.compute_losses(self.forward(self.prepare(batch))), None, f"{task}/")

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
