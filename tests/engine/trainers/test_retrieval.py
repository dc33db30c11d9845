"""RetrievalTrainer: a toy of two towers learns to find the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine_toys import Samples, register, stacked, toy_cfg, train, values
from fasttrain.engine import build_engine
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.data_keys import MissingKeyError
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    ENGINE_REGISTRY,
    EVALUATION_REGISTRY,
    META_ARCH_REGISTRY,
)


@register(DATASETS_REGISTRY, "toy_pairs")
def pairs(cfg: Any, stage: str) -> Samples:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 8, generator=generator)
    texts = images @ torch.randn(8, 8, generator=generator)
    return Samples([{"id": i, "v": v, "t": t} for i, (v, t) in enumerate(zip(images, texts))])  # noqa: B905


@register(META_ARCH_REGISTRY, "ToyTwoTowers")
class TwoTowers(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(8, 8), nn.Linear(8, 8)

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        ids = [(sample["id"], [sample["id"]]) for sample in samples]
        return {kfg.IDS: ids, "v": stacked(samples, "v"), "t": stacked(samples, "t")}

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        pair = [nn.functional.normalize(net(data[key]), dim=-1)
                for net, key in ((self.image, "v"), (self.text, "t"))]  # fmt: skip
        return {**data, kfg.OUTPUT: pair}


@register(EVALUATION_REGISTRY, "ToyRecall")
class Recall:
    def __init__(self, cfg: Any, annfile: str, output_dir: str | None) -> None:
        pass

    def eval(self, v: Tensor, t: Tensor, labels: np.ndarray) -> dict[str, float]:
        best = (t @ v.t()).argmax(1).cpu().numpy()
        return {"r1": float(labels[np.arange(len(best)), best].mean())}


def test_retrieval_learns_to_find_the_image(tmp_path: Path) -> None:
    trainer = train(
        tmp_path, "RetrievalTrainer", "ToyTwoTowers", "toy_pairs",
        LOSSES__NAMES=["BatchTriplet"], INFERENCE__NAME="ToyRecall", DATASETS__VAL="toy_pairs",
        SOLVER__EPOCH=40, SOLVER__EVAL_PERIOD=20,
    )  # fmt: skip
    losses = values(trainer, "total_loss")
    assert np.mean(losses[-4:]) < 0.3 * np.mean(losses[:4])
    assert values(trainer, "val/r1")[-1] > 0.8
    with pytest.raises(ValueError, match=r"needs an evaluator to test: set INFERENCE\.NAME"):
        trainer.test(trainer.cfg, trainer.model, trainer.val_data_loader, None, 0)


def test_a_model_without_a_pair_is_named(tmp_path: Path) -> None:
    trainer = build_engine(
        toy_cfg(
            tmp_path, "ToyTwoTowers", "toy_pairs", DATASETS__VAL="toy_pairs",
            ENGINE__NAME="RetrievalTrainer", INFERENCE__NAME="ToyRecall",
        )
    )  # fmt: skip
    trainer.model.forward = lambda data: {kfg.IDS: data[kfg.IDS]}
    with pytest.raises(MissingKeyError, match="the model's outputs must hold the key 'OUTPUT'"):
        trainer.test(trainer.cfg, trainer.model, trainer.val_data_loader, trainer.val_evaluator, 0)
    assert trainer.model.training


def test_labels_follow_the_ids(tmp_path: Path) -> None:
    """Image 7 has two texts, image 9 has one."""
    seen: list[np.ndarray] = []

    class Spy:
        def eval(self, v: Tensor, t: Tensor, labels: np.ndarray) -> dict[str, float]:
            seen.append(labels)
            return {"n": float(len(t))}

    class Fixed(nn.Module):
        def preprocess_batch(self, batch: Any) -> Any:
            return batch

        def forward(self, data: Any) -> Any:
            return {
                kfg.IDS: [(7, [1, 2]), (9, [3])],
                kfg.OUTPUT: (torch.ones(2, 4), torch.ones(3, 4)),
            }

    found = ENGINE_REGISTRY.get("RetrievalTrainer").test(None, Fixed(), [{}], Spy(), 0)
    assert found == {"n": 3.0}
    assert seen[0].tolist() == [[1, 0], [1, 0], [0, 1]]
