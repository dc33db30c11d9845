"""TDENPretrainer: two updates per iteration, the second on tokens that the first one predicted."""

from __future__ import annotations

from typing import Any

import torch

from fasttrain.engine import data_keys as kfg
from fasttrain.engine.default_trainer import DefaultTrainer
from fasttrain.engine.registries import ENGINE_REGISTRY


@ENGINE_REGISTRY.register()
class TDENPretrainer(DefaultTrainer):
    """Scheduled sampling in two passes (Li et al. 2021, TDEN).

    The model is called with `SIMILARITY` True in the first pass only, and returns `U_LOGITS` and
    `G_LOGITS` [B, T, V]; the batch holds `U_TOKENS_IDS`, `G_TOKENS_IDS` and `U_TARGET_IDS` [B, T].
    """

    updates_per_iter = 2

    def run_step(self) -> None:
        """Two passes of forward, backward and step over one batch."""
        batch, data_time = self.fetch()
        first = self.prepare(batch)
        first[kfg.SIMILARITY] = True
        outputs = self.forward(first)
        self.learn(self.compute_losses(outputs), data_time)
        second = self.forward(self.second_inputs(first, outputs))
        self.learn(self.compute_losses(second), None, "second/")

    def second_inputs(self, data: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        """A copy of the batch whose tokens are the first pass's predictions.

        U tokens change where there is a target; G tokens become the predictions moved one to the
        right, so that the token at t was predicted from those before it.
        """
        u_tokens, _, targets = kfg.need(
            data, "the batch", kfg.U_TOKENS_IDS, kfg.G_TOKENS_IDS, kfg.U_TARGET_IDS
        )
        u_logits, g_logits = kfg.need(outputs, "the model's outputs", kfg.U_LOGITS, kfg.G_LOGITS)
        with torch.no_grad():
            u_predicted = torch.where(
                targets >= 0, u_logits.argmax(-1).to(u_tokens.dtype), u_tokens
            )
            g_predicted = g_logits.argmax(-1).roll(1, dims=1)
            g_predicted[:, 0] = 0
        second = {key: value for key, value in data.items() if key != kfg.SS_PROB}
        second.update(
            {
                kfg.U_TOKENS_IDS: u_predicted,
                kfg.G_TOKENS_IDS: g_predicted,
                kfg.SIMILARITY: False,
            }
        )
        return second
