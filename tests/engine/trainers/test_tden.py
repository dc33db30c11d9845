"""TDENPretrainer: two updates per iteration, the second on what was predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine_toys import Samples, register, stacked, toy_cfg, values
from fasttrain.engine import build_engine
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.data_keys import MissingKeyError
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    META_ARCH_REGISTRY,
)

VOCABULARY, LENGTH = 6, 4


@register(DATASETS_REGISTRY, "toy_sentences")
def sentences(cfg: Any, stage: str) -> Samples:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, VOCABULARY, (16, LENGTH), generator=generator)
    return Samples([{"tokens": row} for row in tokens])


@register(META_ARCH_REGISTRY, "ToyTDEN")
class Tden(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.u, self.g = nn.Linear(16, VOCABULARY), nn.Linear(16, VOCABULARY)
        self.inputs: list[dict[str, Any]] = []

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        tokens = stacked(samples, "tokens")
        masked = tokens.clone()
        masked[:, 0] = 0
        targets = torch.full_like(tokens, -1)
        targets[:, 0] = tokens[:, 0]
        return {
            kfg.U_TOKENS_IDS: masked, kfg.U_TARGET_IDS: targets,
            kfg.G_TOKENS_IDS: tokens, kfg.G_TARGET_IDS: tokens,
        }  # fmt: skip

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        self.inputs.append(data)
        return {
            **data,
            kfg.U_LOGITS: self.u(self.embed(data[kfg.U_TOKENS_IDS])),
            kfg.G_LOGITS: self.g(self.embed(data[kfg.G_TOKENS_IDS])),
        }


def tden_cfg(folder: Path, **changes: Any) -> Any:
    changes = {"ENGINE__NAME": "TDENPretrainer", **changes}
    return toy_cfg(folder, "ToyTDEN", "toy_sentences", **changes)


def test_tden_updates_twice_per_iteration(tmp_path: Path) -> None:
    trainer = build_engine(tden_cfg(tmp_path, SOLVER__EPOCH=30))
    steps: list[int] = []
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(trainer.iter))
    trainer.train()
    assert steps[:4] == [0, 0, 1, 1]
    losses = values(trainer, "total_loss")
    assert losses[-1] < 0.7 * losses[0]
    second_losses = values(trainer, "second/total_loss")
    assert len(second_losses) == len(losses) and second_losses[-1] < second_losses[0]
    first, second = trainer.model.inputs[:2]
    assert (first[kfg.SIMILARITY], second[kfg.SIMILARITY]) == (True, False)
    assert kfg.SS_PROB in first and kfg.SS_PROB not in second
    assert (second[kfg.G_TOKENS_IDS][:, 0] == 0).all()
    assert torch.equal(second[kfg.U_TOKENS_IDS][:, 1:], first[kfg.U_TOKENS_IDS][:, 1:])


def test_tden_shifts_what_was_predicted(tmp_path: Path) -> None:
    trainer = build_engine(tden_cfg(tmp_path))
    tokens = torch.tensor([[1, 2, 3]])
    data = {
        kfg.U_TOKENS_IDS: tokens, kfg.G_TOKENS_IDS: tokens,
        kfg.U_TARGET_IDS: torch.tensor([[-1, 4, -1]]), "kept": 1,
    }  # fmt: skip
    logits = nn.functional.one_hot(torch.tensor([[5, 4, 3]]), VOCABULARY).float()
    second = trainer.second_inputs(data, {kfg.U_LOGITS: logits, kfg.G_LOGITS: logits})
    assert second[kfg.U_TOKENS_IDS].tolist() == [[1, 4, 3]]
    assert second[kfg.G_TOKENS_IDS].tolist() == [[0, 5, 4]]
    assert data[kfg.U_TOKENS_IDS] is tokens and second["kept"] == 1
    with pytest.raises(MissingKeyError, match="'U_LOGITS'"):
        trainer.second_inputs(data, {kfg.G_LOGITS: logits})
