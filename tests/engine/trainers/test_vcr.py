"""VCRTrainer: two tasks, one step each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine_toys import Samples, register, stacked, train, values
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.data_keys import MissingKeyError
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    EVALUATION_REGISTRY,
    META_ARCH_REGISTRY,
)


@register(DATASETS_REGISTRY, "toy_questions")
def questions(cfg: Any, stage: str) -> Samples:
    task = stage.split(";")[1]
    generator = torch.Generator().manual_seed(3)
    right = torch.randint(0, 4, (16,), generator=generator)
    offset = 0 if task == "VCR_Q-A" else 4
    rows = []
    for number, answer in enumerate(right.tolist()):
        choices = torch.zeros(4, 8)
        choices[answer, offset + answer] = 1.0
        rows.append({"id": number, "choices": choices, "answer": answer})
    return Samples(rows)


@register(META_ARCH_REGISTRY, "ToyChooser")
class Chooser(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.net = nn.Linear(8, 1)

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        return {
            kfg.IDS: [sample["id"] for sample in samples],
            "choices": stacked(samples, "choices").flatten(0, 1),
            kfg.U_TARGET_IDS: stacked(samples, "answer"),
        }

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, kfg.U_LOGITS: self.net(data["choices"])}


@register(EVALUATION_REGISTRY, "ToyVcr")
class VcrRating:
    def __init__(self, cfg: Any, annfile: str, output_dir: str | None) -> None:
        answers = [questions(cfg, f"val;{task}").rows for task in ("VCR_Q-A", "VCR_QA-R")]
        self.answers = [{row["id"]: row["answer"] for row in rows} for rows in answers]

    def eval(self, results: list[list[dict]], epoch: int) -> dict[str, float]:
        right = [
            np.mean([self.answers[task][r["image_id"]] == r["caption"] for r in found])
            for task, found in enumerate(results)
        ]
        return {"Q-A": float(right[0]), "QA-R": float(right[1])}


def test_vcr_trains_both_tasks(tmp_path: Path) -> None:
    trainer = train(
        tmp_path, "VCRTrainer", "ToyChooser", "toy_questions",
        DATASETS__VAL="toy_questions", DATASETS__TEST="toy_questions", INFERENCE__NAME="ToyVcr",
        DATALOADER__SEQ_PER_SAMPLE=4,
        SOLVER__EPOCH=20, SOLVER__BASE_LR=0.1, SOLVER__EVAL_PERIOD=10,
    )  # fmt: skip
    assert trainer.iters_per_epoch == 2
    for name in ("total_loss", "VCR_QA-R/total_loss"):
        losses = values(trainer, name)
        assert losses[-1] < 0.5 * losses[0]
    assert trainer.storage.latest()["val/Q-A"] == (1.0, 40)
    assert trainer.storage.latest()["val/QA-R"] == (1.0, 40)
    assert trainer.storage.latest()["test/QA-R"] == (1.0, 40)
    assert len(values(trainer, "data_time")) == 40  # once for both tasks
    with pytest.raises(MissingKeyError, match="'U_LOGITS'"):
        trainer._by_question({}, trainer.cfg)
