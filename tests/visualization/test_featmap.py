import numpy as np
import pytest
import torch

from fasttrain.visualization import Visualizer

pytest.importorskip("matplotlib")
draw = Visualizer.draw_featmap
IMAGE = np.full((16, 24, 3), 100, np.uint8)


def ramp(*order: int, height: int = 4, width: int = 6) -> torch.Tensor:
    """Channels that rise from left to right, each brighter by its number."""
    base = torch.arange(width, dtype=torch.float32).expand(height, width)
    return torch.stack([base * (number + 1) for number in order])


def hue(pixel: np.ndarray) -> str:
    return "rgb"[int(pixel.argmax())]


@pytest.mark.parametrize("reduction", ["squeeze_mean", "select_max"])
def test_reductions(reduction: str) -> None:
    image = draw(ramp(0, 2, 1), channel_reduction=reduction)
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8
    assert (hue(image[0, 0]), hue(image[0, 3]), hue(image[0, 5])) == ("b", "g", "r")


def test_the_strongest_channel_is_selected() -> None:
    falling = ramp(5).flip(2)
    image = draw(torch.cat([ramp(0, 1), falling]), channel_reduction="select_max")
    assert (hue(image[0, 0]), hue(image[0, 5])) == ("r", "b")


def test_a_grid_of_the_strongest() -> None:
    maps = torch.cat([ramp(0), ramp(3).flip(2), ramp(1)])
    image = draw(maps, channel_reduction=None, topk=2, arrangement=(2, 2))
    assert image.shape == (8, 12, 3)
    assert (hue(image[0, 0]), hue(image[0, 6])) == ("r", "b"), "the falling one is the strongest"
    assert (image[4:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_few_channels_may_be_shown_whole(channels: int) -> None:
    image = draw(ramp(*range(channels)), channel_reduction=None, topk=-1)
    assert image.shape == (4, 6, 3)


def test_a_flat_map_is_blue() -> None:
    assert hue(draw(torch.ones(2, 3, 3))[1, 1]) == "b"


def test_sizes() -> None:
    assert draw(ramp(0, 1), resize_shape=(10, 12)).shape == (10, 12, 3)
    with pytest.warns(UserWarning, match=r"the feature map will be interpolated"):
        over = draw(ramp(0, 1), overlaid_image=IMAGE, alpha=0.75)
    assert over.shape == IMAGE.shape
    assert abs(over.astype(float) - 100).max() <= 0.25 * 155 + 1
    with pytest.warns(UserWarning, match=r"interpolated"):
        assert draw(ramp(0), IMAGE[..., 0], resize_shape=(5, 7)).shape == (5, 7, 3)
    with pytest.warns(UserWarning, match=r"interpolated"):
        grid = draw(ramp(0, 1), IMAGE, None, topk=2, arrangement=(1, 2))
    assert grid.shape == (16, 48, 3)
    assert draw(ramp(0, height=16, width=24), IMAGE).shape == IMAGE.shape


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"featmap": np.ones((1, 2, 2))}, r"should be torch\.Tensor, but got"),
        ({"featmap": torch.ones(1, 1, 2, 2)}, r"Input dimension must be 3, but got 4"),
        ({"channel_reduction": "x"}, r'only support "squeeze_mean", "select_max", but got x'),
        ({"channel_reduction": None, "topk": 5, "arrangement": (2, 2)}, r"is less than topk"),
        ({"channel_reduction": None, "topk": -1}, r"must be 1 or 3 when topk is less than 1, .* 2"),
    ],
)
def test_refuses(arguments: dict, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        draw(**{"featmap": ramp(0, 1), **arguments})
