"""NaiveVisualizationHook: draw test images with their samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fasttrain.registry import HOOKS

from .hook import DATA_BATCH, Hook

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class NaiveVisualizationHook(Hook):
    """Shows the images of the test set with ground truth and prediction through the visualizer.

    Args:
        interval: draw in each interval-th iteration.
        draw_gt: draw the ground truth.
        draw_pred: draw the prediction.
    """

    priority = "NORMAL"

    def __init__(self, interval: int = 1, draw_gt: bool = True, draw_pred: bool = True) -> None:
        self.draw_gt = draw_gt
        self.draw_pred = draw_pred
        self._interval = interval

    def _unpad(self, input: np.ndarray, unpad_shape: tuple[int, int]) -> np.ndarray:
        """The part of an image of shape (H, W, C) that padding did not add."""
        width, height = unpad_shape
        return input[:height, :width]

    def before_train(self, runner: Runner) -> None:
        """Draw the model's graph."""
        runner.visualizer.add_graph(runner.model, None)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence | None = None,
    ) -> None:
        if not self.every_n_inner_iters(batch_idx, self._interval):
            return
        for data, output in zip(data_batch or (), outputs or (), strict=False):
            image, sample = data["inputs"], data["data_sample"]
            image = self._unpad(to_image(image), sample.scale)
            name = os.path.basename(sample.img_path)
            runner.visualizer.add_datasample(
                name, image, sample, output, self.draw_gt, self.draw_pred
            )


def to_image(value: Any) -> np.ndarray:
    """An image tensor of shape (C, H, W) as an array of shape (H, W, C)."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()  # sync point
    return np.ascontiguousarray(np.transpose(value, (1, 2, 0)))
