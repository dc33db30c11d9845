"""Self-critical training: sampled sequences, rewarded against a baseline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasttrain.engine import comm, losses
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.config import read
from fasttrain.engine.default_trainer import DefaultTrainer
from fasttrain.engine.model_modes import evaluating, unwrap
from fasttrain.engine.registries import ENGINE_REGISTRY

SUPERVISED = ("CrossEntropy", "LabelSmoothing")


class _RewardTrainer(DefaultTrainer):
    """What the reward trainers share: the scorer, and losses without the supervised ones."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.scorer = self.build_scorer(cfg)

    def rewards_of(self, outputs: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The scorer's rewards [B] on the model's device, and its metrics."""
        scores = dict(self.scorer(outputs))
        kfg.need(scores, "the scorer's result", kfg.REWARDS)
        device = next(self.model.parameters()).device
        rewards = torch.as_tensor(scores.pop(kfg.REWARDS), device=device, dtype=torch.float32)
        return rewards, scores

    def run_step(self) -> None:
        """One iteration: batch, decoding, reward, update, metrics."""
        batch, data_time = self.fetch()
        loss_dict, scores = self.reward_losses(self.prepare(batch))
        self.learn(loss_dict, data_time)
        self._write_scores(scores, loss_dict)

    def _write_scores(self, scores: dict[str, float], loss_dict: dict[str, Tensor]) -> None:
        """Put the scores, and a loss that is the only one, which else is put as the total alone.

        As all metrics they are put every gather period, as means over the processes.
        """
        done = self.iter + 1
        if done % read(self.cfg, "SOLVER.GATHER_METRIC_PERIOD", 1) and done != self.max_iter:
            return
        shown: dict[str, Any] = dict(scores)
        if len(loss_dict) == 1:
            shown.update((name, loss.detach()) for name, loss in loss_dict.items())
        if comm.get_world_size() > 1:
            device = next(iter(loss_dict.values())).device
            shown = comm.reduce_dict(
                {name: torch.as_tensor(v, dtype=torch.float32, device=device)
                 for name, v in shown.items()}
            )  # fmt: skip
        self.storage.put_all(shown)

    def reward_losses(self, data: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The losses to backpropagate, and the scores to log."""
        raise NotImplementedError


@ENGINE_REGISTRY.register()
class RLTrainer(_RewardTrainer):
    """Self-critical sequence training (Rennie et al. 2017): the greedy sequence is the baseline.

    The model decodes (see `protocols.DecodingModel`); the losses are RewardCriterion and those of
    the config that are not supervised.
    """

    @classmethod
    def build_losses(cls, cfg: Any) -> list[Any]:
        names = [name for name in cfg.LOSSES.NAMES if name not in (*SUPERVISED, "RewardCriterion")]
        return losses.build_losses(cfg, ["RewardCriterion", *names])

    def reward_losses(self, data: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        baseline, scores = self.baseline(data)
        sampled = self.sample(data)
        rewards, _ = self.rewards_of(sampled)
        if rewards.shape != baseline.shape:
            raise ValueError(
                f"the scorer gave rewards of shape {tuple(rewards.shape)} for the sample but "
                f"{tuple(baseline.shape)} for the baseline; both must be [B]"
            )
        sampled[kfg.REWARDS] = rewards - baseline
        return self.compute_losses(sampled), scores

    def baseline(self, data: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Rewards of the greedy sequences, and their scores."""
        with evaluating(self.model) as bare:
            greedy = bare(
                {**data, kfg.DECODE_BY_SAMPLE: False}, use_beam_search=False, output_sents=False
            )
        return self.rewards_of(greedy)

    def sample(self, data: dict[str, Any]) -> dict[str, Any]:
        """The outputs of the model in training mode, decoding by sampling."""
        outputs = self.call_model(
            {**data, kfg.DECODE_BY_SAMPLE: True}, use_beam_search=False, output_sents=False
        )
        kfg.need(outputs, "the model's outputs", kfg.IDS, kfg.G_SENTS_IDS, kfg.G_LOGP)
        return outputs


@ENGINE_REGISTRY.register()
class RLMeanTrainer(RLTrainer):
    """RLTrainer whose baseline is the mean reward of the batch's samples: no second decoding."""

    def reward_losses(self, data: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        sampled = self.sample(data)
        rewards, scores = self.rewards_of(sampled)
        sampled[kfg.REWARDS] = rewards - rewards.mean()
        return self.compute_losses(sampled), scores


@ENGINE_REGISTRY.register()
class RLBeamTrainer(_RewardTrainer):
    """Beam search in training: every beam is rewarded against the mean of its k beams.

    Besides what RLTrainer asks for, the data hold `ATT_FEATS` [B, ...], the model has
    `beam_searcher.beam_size`, and with `OUT_SIZE` = k it returns `G_LOGP` [B, k, T] and
    `G_SENTS_IDS` [B * k, T] or [B, k, T].
    """

    @classmethod
    def build_losses(cls, cfg: Any) -> list[Any]:
        return []

    def reward_losses(self, data: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        kfg.need(data, "the batch", kfg.ATT_FEATS, kfg.IDS)
        bare: Any = unwrap(self.model)
        beams = int(bare.beam_searcher.beam_size)
        outputs = self.call_model(
            {**data, kfg.OUT_SIZE: beams}, use_beam_search=True, output_sents=False
        )
        logp, tokens = kfg.need(outputs, "the model's outputs", kfg.G_LOGP, kfg.G_SENTS_IDS)
        ids = [id_ for id_ in data[kfg.IDS] for _ in range(beams)]
        rewards, scores = self.rewards_of(
            {**outputs, kfg.IDS: ids, kfg.G_SENTS_IDS: tokens.reshape(-1, tokens.shape[-1])}
        )
        if rewards.numel() != logp.shape[0] * beams:
            raise ValueError(
                f"the scorer must reward {logp.shape[0]} x {beams} sequences, got {rewards.numel()}"
            )
        rewards = rewards.reshape(-1, beams)
        advantage = rewards - rewards.mean(-1, keepdim=True)
        loss = (-logp.mean(-1) * advantage).mean()
        return {"BeamRewardCriterion": loss}, scores
