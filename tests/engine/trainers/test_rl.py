"""The reward trainers: a toy speaker whose rewards rise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine_toys import Samples, register, stacked, toy_cfg, train, values
from fasttrain.engine import build_engine
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.data_keys import MissingKeyError
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    META_ARCH_REGISTRY,
    SCORER_REGISTRY,
)
from fasttrain.engine.trainers import rl

VOCABULARY, LENGTH = 6, 4


@register(DATASETS_REGISTRY, "toy_prompts")
def prompts(cfg: Any, stage: str) -> Samples:
    return Samples([{"id": i, "x": torch.eye(4)[i % 4]} for i in range(16)])


@register(META_ARCH_REGISTRY, "ToySpeaker")
class Speaker(nn.Module):
    """Says LENGTH tokens, each drawn from its own distribution."""

    beam_searcher = SimpleNamespace(beam_size=3)

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.net = nn.Linear(4, LENGTH * VOCABULARY)

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        x = stacked(samples, "x")
        return {kfg.IDS: [sample["id"] for sample in samples], kfg.ATT_FEATS: x}

    def forward(
        self, data: dict[str, Any], use_beam_search: bool, output_sents: bool
    ) -> dict[str, Any]:
        logp = self.net(data[kfg.ATT_FEATS]).reshape(-1, LENGTH, VOCABULARY).log_softmax(-1)
        if use_beam_search:
            draws = torch.distributions.Categorical(logits=logp).sample((data[kfg.OUT_SIZE],))
            tokens = draws.transpose(0, 1)
            chosen = logp[:, None].expand(*tokens.shape, -1).gather(-1, tokens[..., None])[..., 0]
        elif data[kfg.DECODE_BY_SAMPLE]:
            tokens = torch.distributions.Categorical(logits=logp).sample()
            chosen = logp.gather(-1, tokens[..., None])[..., 0]
        else:
            chosen, tokens = logp.max(-1)
        return {**data, kfg.G_LOGP: chosen, kfg.G_SENTS_IDS: tokens}


@register(SCORER_REGISTRY, "ToyScorer")
class Scorer:
    """Rewards the share of tokens that are 5; needs one id per sequence."""

    def __init__(self, cfg: Any) -> None:
        pass

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        tokens = outputs[kfg.G_SENTS_IDS]
        assert len(outputs[kfg.IDS]) == len(tokens)
        rewards = (tokens == 5).float().mean(1).cpu().numpy()
        return {kfg.REWARDS: rewards, "CIDEr": float(rewards.mean())}


def speaker_cfg(folder: Path, engine: str, **changes: Any) -> Any:
    changes = {"ENGINE__NAME": engine, "SCORER__NAME": "ToyScorer", **changes}
    return toy_cfg(folder, "ToySpeaker", "toy_prompts", **changes)


@pytest.mark.parametrize("engine", ["RLTrainer", "RLMeanTrainer", "RLBeamTrainer"])
def test_rewards_rise(tmp_path: Path, engine: str) -> None:
    trainer = train(
        tmp_path, engine, "ToySpeaker", "toy_prompts",
        SCORER__NAME="ToyScorer", SOLVER__EPOCH=60, SOLVER__GRAD_CLIP=0.0,
    )  # fmt: skip
    scores = values(trainer, "CIDEr")
    assert np.mean(scores[-10:]) > np.mean(scores[:10]) + 0.15
    key = "BeamRewardCriterion" if engine == "RLBeamTrainer" else "RewardCriterion"
    assert values(trainer, key) == values(trainer, "total_loss")  # no score is in it
    assert len(scores) == len(values(trainer, key))
    assert len(trainer.storage.history("total_loss")) == 120
    assert [type(loss).__name__ for loss in trainer.losses] == (
        [] if engine == "RLBeamTrainer" else ["RewardCriterion"]
    )


def test_scores_are_means_over_the_processes_at_each_gathering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_engine(
        speaker_cfg(tmp_path, "RLMeanTrainer", SOLVER__EPOCH=3, SOLVER__GATHER_METRIC_PERIOD=4)
    )
    monkeypatch.setattr(rl.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        rl.comm, "reduce_dict", lambda found: {name: v * 0 + 7 for name, v in found.items()}
    )
    trainer.train()
    for name in ("CIDEr", "RewardCriterion"):
        assert trainer.storage.history(name).values() == [(7.0, 3), (7.0, 5)]  # and the last


def test_a_scorer_without_rewards_is_named(tmp_path: Path) -> None:
    trainer = build_engine(speaker_cfg(tmp_path, "RLTrainer"))
    trainer.scorer = lambda outputs: {"CIDEr": 1.0}
    with pytest.raises(MissingKeyError, match=r"the scorer's result must hold the key 'REWARDS'"):
        trainer.train()


def test_beams_need_features(tmp_path: Path) -> None:
    trainer = build_engine(speaker_cfg(tmp_path, "RLBeamTrainer"))
    with pytest.raises(MissingKeyError, match="'ATT_FEATS'"):
        trainer.reward_losses({kfg.IDS: [1]})
