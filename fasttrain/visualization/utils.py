"""Small checks and conversions of the drawing methods; matplotlib is imported when it is used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.visualization.base_backend import require

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

BRIGHTNESS = (0.114, 0.587, 0.299)  # what blue, green and red, in this order, add to it


def tensor2ndarray(value: np.ndarray | Tensor) -> np.ndarray:
    """A tensor as an array on the host (sync point for a device); an array as it is."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def value2list(value: Any, valid_type: type | tuple[type, ...], expand_dim: int) -> list[Any]:
    """A single value of a type as a list of it, repeated; a list as it is."""
    return [value] * expand_dim if isinstance(value, valid_type) else value


def check_type(name: str, value: Any, valid_type: type | tuple[type, ...]) -> None:
    """Raise TypeError when `value` has none of the types."""
    if not isinstance(value, valid_type):
        raise TypeError(f"`{name}` should be {valid_type}  but got {type(value)}")


def check_length(name: str, value: Any, valid_length: int) -> None:
    """Raise AssertionError when a list is too short."""
    if isinstance(value, list):
        assert len(value) >= valid_length, (
            f"The length of {name} must equal with or greater than {valid_length}, "
            f"but got {len(value)}"
        )


def check_type_and_length(
    name: str, value: Any, valid_type: type | tuple[type, ...], valid_length: int
) -> None:
    """Both checks."""
    check_type(name, value, valid_type)
    check_length(name, value, valid_length)


def color_val_matplotlib(colors: str | tuple | list[str] | list[tuple]) -> Any:
    """RGB in 0..255 as matplotlib's 0..1; names as they are; lists entry by entry.

    Raises:
        TypeError: it is no color.
    """
    if isinstance(colors, str):
        return colors
    if isinstance(colors, tuple):
        assert len(colors) == 3, f"a color must have 3 values, got {colors}"
        assert all(0 <= channel <= 255 for channel in colors), (
            f"the values of a color must be in 0..255, got {colors}"
        )
        return tuple(channel / 255 for channel in colors)
    if isinstance(colors, list):
        return [color_val_matplotlib(color) for color in colors]
    raise TypeError(f"Invalid type for color: {type(colors)}")


def color_str2rgb(color: str) -> tuple[int, ...]:
    """A color's name as RGB in 0..255."""
    rgb = require("matplotlib.colors", "matplotlib").to_rgb(color)
    return tuple(int(channel * 255) for channel in rgb)


def convert_overlay_heatmap(
    feat_map: np.ndarray | Tensor, img: np.ndarray | None = None, alpha: float = 0.5
) -> np.ndarray:
    """A map of values as colors, from blue (smallest) to red, laid over an image.

    Args:
        feat_map: shape [height, width], or [channels, height, width] of 1 or 3 channels; three are
            taken as an image, whose brightness counts.
        img: shape [height, width, 3], uint8.
        alpha: the share of the image.
    Returns:
        shape [height, width, 3], uint8.
    """
    assert feat_map.ndim == 2 or (feat_map.ndim == 3 and feat_map.shape[0] in (1, 3)), (
        f"feat_map must have the shape [H, W], [1, H, W] or [3, H, W], got {tuple(feat_map.shape)}"
    )
    values = tensor2ndarray(feat_map).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    levels = (values - low) / (high - low) * 255 if high > low else np.zeros_like(values)
    levels = np.floor(np.nan_to_num(levels))
    if levels.ndim == 3:
        weights = BRIGHTNESS if levels.shape[0] == 3 else (1,)
        levels = np.round(np.tensordot(weights, levels, axes=1))
    heat = _jet(levels)
    return heat if img is None else blend(heat, img, alpha)


def _jet(levels: np.ndarray) -> np.ndarray:
    """Levels in 0..255 as colors from dark blue over cyan, yellow and red to dark red, uint8."""
    peaks = 255 * np.array([3, 2, 1])  # four times the levels where red, green, blue are strongest
    return np.rint(np.clip(382.5 - np.abs(4 * levels[..., None] - peaks), 0, 255)).astype(np.uint8)


def blend(over: np.ndarray, under: np.ndarray, alpha: float) -> np.ndarray:
    """`over * (1 - alpha) + under * alpha`, rounded to uint8."""
    mixed = over.astype(np.float64) * (1 - alpha) + under.astype(np.float64) * alpha
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of shape [channels, height, width] in another size, bilinear."""
    return torch.nn.functional.interpolate(
        maps[None].float(), size, mode="bilinear", align_corners=False
    )[0]


def wait_continue(figure: Any, timeout: float = 0, continue_key: str = " ") -> int:
    """Show a figure until a key is pressed, the window is closed, or the time is over.

    Args:
        timeout: seconds; 0 for no limit.
        continue_key: the key to go on with.
    Returns:
        0 for the key or the end of the time, 1 for a closed window.
    """
    pyplot = require("matplotlib.pyplot", "matplotlib")
    outcome: list[int] = []

    def on_event(event: Any) -> None:
        if event.name == "close_event":
            outcome.append(1)
        elif event.key == continue_key:
            outcome.append(0)

    handles = [
        figure.canvas.mpl_connect(name, on_event) for name in ("key_press_event", "close_event")
    ]
    pyplot.show(block=False)
    end = time.monotonic() + timeout if timeout else float("inf")
    while not outcome and time.monotonic() < end:
        figure.canvas.start_event_loop(min(0.1, timeout or 0.1))
    for handle in handles:
        figure.canvas.mpl_disconnect(handle)
    return outcome[0] if outcome else 0


def img_from_canvas(canvas: FigureCanvasAgg) -> np.ndarray:
    """What a canvas shows, shape [height, width, 3], RGB, uint8."""
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
