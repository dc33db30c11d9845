"""Losses by their config names; each takes a model's outputs and returns named scalars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.engine import data_keys as kfg
from fasttrain.engine.registries import LOSSES_REGISTRY


class _TokenLoss(nn.Module):
    """A classification loss over every pair of logits and targets that the outputs hold."""

    title: str
    label_smoothing = 0.0

    def forward(self, outputs: dict[str, Any]) -> dict[str, Tensor]:
        pairs = {
            "G": (kfg.G_LOGITS, kfg.G_TARGET_IDS),
            "U": (kfg.U_LOGITS, kfg.U_TARGET_IDS),
        }
        found = {}
        for mark, (logits_key, target_key) in pairs.items():
            if logits_key in outputs:
                logits, target = kfg.need(
                    outputs, f"outputs for {self.title}", logits_key, target_key
                )
                found[f"{self.title} Loss({mark})"] = F.cross_entropy(
                    logits.reshape(-1, logits.shape[-1]),
                    target.reshape(-1),
                    ignore_index=-1,
                    label_smoothing=self.label_smoothing,
                )
        if not found:
            kfg.need(outputs, f"outputs for {self.title}", kfg.G_LOGITS)
        return found


@LOSSES_REGISTRY.register()
class CrossEntropy(_TokenLoss):
    """Cross entropy of `G_LOGITS` and `U_LOGITS` [..., V] against their targets; -1 is ignored."""

    title = "CrossEntropy"

    def __init__(self, cfg: Any = None) -> None:
        super().__init__()


@LOSSES_REGISTRY.register()
class LabelSmoothing(_TokenLoss):
    """CrossEntropy with `cfg.LOSSES.LABELSMOOTHING` of the mass spread evenly."""

    title = "LabelSmoothing"

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.label_smoothing = cfg.LOSSES.LABELSMOOTHING


@LOSSES_REGISTRY.register()
class BatchTriplet(nn.Module):
    """Hinge on the similarities of matching and other pairs of a batch (VSE++, equation 5 or 6).

    `OUTPUT` is a pair of embeddings [B, D], row i of one matching row i of the other.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.margin = cfg.LOSSES.MARGIN
        self.max_violation = cfg.LOSSES.MAX_VIOLATION

    def forward(self, outputs: dict[str, Any]) -> dict[str, Tensor]:
        (pair,) = kfg.need(outputs, "outputs for BatchTriplet", kfg.OUTPUT)
        scores = pair[0] @ pair[1].t()
        right = scores.diag()
        others = 1.0 - torch.eye(len(scores), device=scores.device, dtype=scores.dtype)
        losses = []
        for dim, bar in ((1, right[:, None]), (0, right[None, :])):
            cost = (self.margin + scores - bar).clamp(min=0) * others
            losses.append(cost.amax(dim) if self.max_violation else cost.sum(dim))
        return {"BatchTriplet Loss": losses[0].sum() + losses[1].sum()}


@LOSSES_REGISTRY.register()
class RewardCriterion(nn.Module):
    """Policy gradient: minus log-probability times reward, averaged over the sequence's tokens.

    Rennie et al. 2017, equation 7. Reads `G_LOGP` [B, T] (or [B, T, V], taken at the sampled
    tokens), `G_SENTS_IDS` [B, T] (0 ends a sequence; its first 0 still counts) and `REWARDS` [B].
    """

    def __init__(self, cfg: Any = None) -> None:
        super().__init__()
        self.eos_id = 0 if cfg is None else cfg.SCORER.EOS_ID

    def forward(self, outputs: dict[str, Any]) -> dict[str, Tensor]:
        logp, tokens, rewards = kfg.need(
            outputs, "outputs for RewardCriterion", kfg.G_LOGP, kfg.G_SENTS_IDS, kfg.REWARDS
        )
        if logp.dim() == 3:
            logp = logp.gather(2, tokens.unsqueeze(2)).squeeze(2)
        rewards = torch.as_tensor(rewards, device=logp.device, dtype=logp.dtype)
        running = (tokens != self.eos_id).to(logp.dtype).cumprod(1)
        mask = torch.cat([running.new_ones(len(running), 1), running[:, :-1]], 1)
        loss = -(logp * rewards.reshape(-1, 1) * mask).sum() / mask.sum()
        return {"RewardCriterion": loss}


def build_losses(cfg: Any, names: Iterable[str] | None = None) -> list[Any]:
    """One loss per name; empty names are left out.

    Args:
        names: those in `cfg.LOSSES.NAMES` when None.
    """
    wanted = cfg.LOSSES.NAMES if names is None else names
    return [LOSSES_REGISTRY.get(name)(cfg) for name in wanted if name]
