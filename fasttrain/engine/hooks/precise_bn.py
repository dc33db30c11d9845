"""PreciseBN: batch-norm statistics as true averages over many batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fasttrain.engine.batches import endless_batches
from fasttrain.engine.events import EventStorage
from fasttrain.engine.trainer_base import HookBase

logger = logging.getLogger("fasttrain.engine.hooks")

BatchNorm = nn.modules.batchnorm._BatchNorm


def active_batch_norms(model: nn.Module) -> list[BatchNorm]:
    """The batch-norm layers in training mode that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, BatchNorm) and module.training and module.track_running_stats
    ]


class PreciseBN(HookBase):
    """Replaces the running statistics of batch norm by averages over `num_iter` batches.

    Runs every `period` iterations and at the last one; nothing happens without batch-norm layers
    in training mode. Its forward passes put no scalars into the trainer's storage.

    Args:
        period: iterations; 0 for the end only.
        model: called with each batch, without gradients.
        data_loader: gives the batches; started again when it ends.
        num_iter: batches to average over.
    """

    def __init__(
        self, period: int, model: nn.Module, data_loader: Iterable[Any], num_iter: int
    ) -> None:
        if num_iter < 1:
            raise ValueError(f"num_iter must be >= 1, got {num_iter}")
        self._model = model
        self._batches = endless_batches(data_loader)
        self._num_iter = num_iter
        self._period = period
        self._disabled = not active_batch_norms(model)
        if self._disabled:
            logger.info("PreciseBN is disabled: no batch-norm layer in training mode.")

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        is_final = done == self.trainer.max_iter
        if is_final or (self._period > 0 and done % self._period == 0):
            self.update_stats()

    @torch.no_grad()
    def update_stats(self) -> None:
        """Compute the statistics and put them into the layers."""
        if self._disabled:
            return
        layers = active_batch_norms(self._model)
        momenta = [layer.momentum for layer in layers]
        means = [torch.zeros_like(layer.running_mean) for layer in layers]  # type: ignore[arg-type]
        squares = [torch.zeros_like(layer.running_var) for layer in layers]  # type: ignore[arg-type]
        try:
            for layer in layers:
                layer.momentum = 1.0  # running statistics become those of one batch
            with EventStorage():
                for _ in range(self._num_iter):
                    self._model(next(self._batches))
                    for layer, mean, square in zip(layers, means, squares, strict=True):
                        batch_mean: Any = layer.running_mean
                        batch_var: Any = layer.running_var
                        mean += batch_mean / self._num_iter
                        square += (batch_var + batch_mean**2) / self._num_iter
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
        for layer, mean, square in zip(layers, means, squares, strict=True):
            # Variance over all batches: the mean of squares less the square of the mean.
            layer.running_mean.copy_(mean)  # type: ignore[union-attr]
            layer.running_var.copy_((square - mean**2).clamp_(min=0))  # type: ignore[union-attr]
        logger.info(
            "PreciseBN: statistics of %d layers over %d batches", len(layers), self._num_iter
        )
