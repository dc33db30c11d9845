"""Feature maps as images: one channel of them, their mean, or a grid of the strongest."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from fasttrain.visualization.utils import convert_overlay_heatmap, resize_maps


def draw_featmap(
    featmap: Tensor,
    overlaid_image: np.ndarray | None = None,
    channel_reduction: str | None = "squeeze_mean",
    topk: int = 20,
    arrangement: tuple[int, int] = (4, 5),
    resize_shape: tuple | None = None,
    alpha: float = 0.5,
) -> np.ndarray:
    """Draw a feature map of shape [channels, height, width].

    Args:
        featmap: the map.
        overlaid_image: an image to lay it over, uint8; the map takes its size.
        channel_reduction: "squeeze_mean" shows the mean of the channels, "select_max" the one with
            the largest sum, `None` several of them.
        topk: the number of channels shown without a reduction, those with the largest sums; -1
            shows 1 channel, or the brightness of 3 that make an image.
        arrangement: rows and columns of the grid of channels.
        resize_shape: height and width of the result, or of each cell of the grid.
        alpha: the share of the overlaid image.
    Returns:
        uint8, RGB.
    """
    assert isinstance(featmap, Tensor), f"`featmap` should be torch.Tensor, but got {type(featmap)}"
    assert featmap.ndim == 3, f"Input dimension must be 3, but got {featmap.ndim}"
    featmap = featmap.detach().cpu()  # sync point
    if overlaid_image is not None:
        overlaid_image, featmap = _fit(overlaid_image, featmap, resize_shape)
    elif resize_shape is not None:
        featmap = resize_maps(featmap, tuple(resize_shape))  # type: ignore[arg-type]
    if channel_reduction is not None:
        assert channel_reduction in ("squeeze_mean", "select_max"), (
            f'Mode only support "squeeze_mean", "select_max", but got {channel_reduction}'
        )
        if channel_reduction == "select_max":
            strongest = featmap.sum(dim=(1, 2)).argmax()
            return convert_overlay_heatmap(featmap[strongest], overlaid_image, alpha)
        return convert_overlay_heatmap(featmap.mean(dim=0), overlaid_image, alpha)
    if topk <= 0:
        channels = featmap.shape[0]
        assert channels in (1, 3), (
            "The input tensor channel dimension must be 1 or 3 when topk is less than 1, but the "
            f"channel dimension you input is {channels}, you can use the channel_reduction "
            "parameter or set topk greater than 0 to solve the error"
        )
        return convert_overlay_heatmap(featmap, overlaid_image, alpha)
    return _grid(featmap, overlaid_image, topk, arrangement, alpha)


def _fit(image: np.ndarray, featmap: Tensor, size: tuple | None) -> tuple[np.ndarray, Tensor]:
    """Bring image and map to one size: the wanted one, else the image's."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if tuple(image.shape[:2]) != tuple(featmap.shape[1:]):
        warnings.warn(
            f"Since the spatial dimensions of overlaid_image: {image.shape[:2]} and featmap: "
            f"{tuple(featmap.shape[1:])} are not same, the feature map will be interpolated. "
            "This may cause mismatch problems !",
            stacklevel=3,
        )
    height, width = size or image.shape[:2]
    if size is not None:
        channels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
        resized = resize_maps(channels, (height, width)).permute(1, 2, 0)
        image = resized.round().clamp(0, 255).to(torch.uint8).numpy()
    return image, resize_maps(featmap, (height, width))


def _grid(
    featmap: Tensor,
    image: np.ndarray | None,
    topk: int,
    arrangement: tuple[int, int],
    alpha: float,
) -> np.ndarray:
    """The strongest channels, row by row; cells that stay empty are white."""
    rows, columns = arrangement
    assert rows * columns >= topk, (
        "The product of row and col in the `arrangement` is less than topk, please set the "
        "`arrangement` correctly"
    )
    channels, height, width = featmap.shape
    order = featmap.sum(dim=(1, 2)).topk(min(topk, channels)).indices
    canvas = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for place, channel in enumerate(order.tolist()):
        row, column = divmod(place, columns)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = (
            convert_overlay_heatmap(featmap[channel], image, alpha)
        )
    return canvas
