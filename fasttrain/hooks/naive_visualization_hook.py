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
            sample = data["data_sample"]
            norm = sample.get("img_norm_cfg", {}) if hasattr(sample, "get") else {}
            image = to_image(data["inputs"], **norm)
            height, width = image.shape[:2]
            image = self._unpad(image, getattr(sample, "scale", (width, height)))
            size: Any = (
                getattr(sample, "ori_height", height),
                getattr(sample, "ori_width", width),
            )
            runner.visualizer.add_datasample(
                os.path.basename(sample.img_path),
                resized(image, size),
                sample,
                output,
                self.draw_gt,
                self.draw_pred,
            )


def to_image(
    value: torch.Tensor, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1)
) -> np.ndarray:
    """A normalised BGR tensor of shape ([1,] 3, H, W) as an RGB array of shape (H, W, 3).

    Args:
        mean, std: per channel, what the preprocessing subtracted and divided by.
    """
    pixels = value.detach().reshape(value.shape[-3:]).permute(1, 2, 0).cpu().numpy()  # sync point
    image = pixels * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    return np.ascontiguousarray(image[..., ::-1])


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An array of shape (H, W, C) at another (height, width), bilinearly."""
    if image.shape[:2] == size:
        return image
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    scaled = torch.nn.functional.interpolate(batch, size=size, mode="bilinear")
    return scaled[0].permute(1, 2, 0).contiguous().numpy()
