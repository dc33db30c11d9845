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


class Watched:
    """A model and a scorer that note how they are called; rewards are 1, 2, 3, ... per call."""

    def __init__(self, trainer: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.seen: list[dict[str, Any]] = []
        self.model, self.own = trainer.model, trainer.model.forward
        trainer.model.forward, trainer.scorer = self.forward, self.score
        trainer.losses = [self.loss]

    def forward(self, data: dict[str, Any], **how: Any) -> dict[str, Any]:
        sampling = data.get(kfg.DECODE_BY_SAMPLE), data.get(kfg.OUT_SIZE)
        self.calls.append((*sampling, self.model.training, torch.is_grad_enabled(), *how.values()))
        return self.own(data, **how)

    def score(self, outputs: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(outputs)
        count = len(outputs[kfg.IDS])
        rewards = np.arange(count, dtype=np.float64) ** len(self.seen)
        return {kfg.REWARDS: rewards, "CIDEr": float(len(self.seen))}

    def loss(self, outputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        self.rewards = outputs[kfg.REWARDS]
        return {"RewardCriterion": outputs[kfg.G_LOGP].sum()}


def batch_of(trainer: Any) -> dict[str, Any]:
    return trainer.prepare([{"id": i, "x": torch.eye(4)[i]} for i in range(4)])


def test_the_reward_of_a_sample_is_less_that_of_the_greedy_sequence(tmp_path: Path) -> None:
    trainer = build_engine(speaker_cfg(tmp_path, "RLTrainer"))
    watched = Watched(trainer)
    _, scores = trainer.reward_losses(batch_of(trainer))
    assert watched.calls == [
        (False, None, False, False, False, False),  # greedy: eval mode, without gradients
        (True, None, True, True, False, False),
    ]
    assert watched.rewards.tolist() == [0 - 0, 1 - 1, 4 - 2, 9 - 3]
    assert scores == {"CIDEr": 1.0}  # the baseline's


def test_the_baseline_may_be_the_mean_of_the_samples(tmp_path: Path) -> None:
    trainer = build_engine(speaker_cfg(tmp_path, "RLMeanTrainer"))
    watched = Watched(trainer)
    trainer.reward_losses(batch_of(trainer))
    assert watched.calls == [(True, None, True, True, False, False)]
    assert watched.rewards.tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_beams_are_rewarded_against_their_own_mean(tmp_path: Path) -> None:
    trainer = build_engine(speaker_cfg(tmp_path, "RLBeamTrainer"))
    watched = Watched(trainer)
    torch.manual_seed(0)
    losses, _ = trainer.reward_losses(batch_of(trainer))
    assert watched.calls == [(None, 3, True, True, True, False)]
    (outputs,) = watched.seen
    assert outputs[kfg.IDS] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    logp = outputs[kfg.G_LOGP]
    assert logp.shape == (4, 3, LENGTH) and outputs[kfg.G_SENTS_IDS].shape == (12, LENGTH)
    expected = torch.stack([-logp[i, j].mean() * (j - 1) for i in range(4) for j in range(3)])
    torch.testing.assert_close(losses, {"BeamRewardCriterion": expected.mean()})


def test_supervised_losses_are_left_out_and_others_kept(tmp_path: Path) -> None:
    names = ["CrossEntropy", "BatchTriplet", "LabelSmoothing", "RewardCriterion", ""]
    found = build_engine(speaker_cfg(tmp_path, "RLTrainer", LOSSES__NAMES=names)).losses
    assert [type(loss).__name__ for loss in found] == ["RewardCriterion", "BatchTriplet"]


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
