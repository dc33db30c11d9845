from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.visualization.utils import (
    blend,
    check_length,
    check_type,
    check_type_and_length,
    color_str2rgb,
    color_val_matplotlib,
    convert_overlay_heatmap,
    img_from_canvas,
    tensor2ndarray,
    value2list,
    wait_continue,
)


def test_tensor2ndarray() -> None:
    array = tensor2ndarray(torch.ones(2, requires_grad=True))
    assert isinstance(array, np.ndarray) and array.tolist() == [1.0, 1.0]
    assert tensor2ndarray(array) is array


def test_value2list() -> None:
    assert value2list("a", str, 2) == ["a", "a"]
    assert value2list((1, 2), tuple, 2) == [(1, 2), (1, 2)]
    assert value2list(["a"], str, 2) == ["a"]


def test_checks() -> None:
    check_type("n", 1, (int, str))
    check_length("n", [1, 2, 3], 2)
    check_length("n", 1, 2)
    with pytest.raises(TypeError, match=r"`n` should be <class 'str'>  but got <class 'int'>"):
        check_type("n", 1, str)
    with pytest.raises(AssertionError, match=r"length of n must .* greater than 2, but got 1"):
        check_type_and_length("n", [1], list, 2)


@pytest.mark.parametrize(
    ("color", "converted"),
    [("r", "r"), ((255, 0, 51), (1.0, 0.0, 0.2)), (["g", (0, 0, 0)], ["g", (0.0, 0.0, 0.0)])],
)
def test_colors(color: Any, converted: Any) -> None:
    assert color_val_matplotlib(color) == converted


@pytest.mark.parametrize(
    ("color", "error"), [(3, TypeError), ((1, 2), AssertionError), ((0, 0, 256), AssertionError)]
)
def test_refuses_colors(color: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"Invalid type for color|3 values, got \(1, 2\)|in 0..255"):
        color_val_matplotlib(color)


def test_color_names() -> None:
    pytest.importorskip("matplotlib")
    assert color_str2rgb("green") == (0, 128, 0)
    with pytest.raises(ValueError, match=r"zz"):
        color_str2rgb("zz")


def test_heatmap() -> None:
    pytest.importorskip("matplotlib")
    ramp = torch.linspace(-1, 1, 9).reshape(1, 1, 9)
    heat = convert_overlay_heatmap(ramp)
    assert heat.shape == (1, 9, 3) and heat[0, 0].argmax() == 2 and heat[0, 8].argmax() == 0
    image = np.zeros((1, 9, 3), np.uint8)
    np.testing.assert_array_equal(convert_overlay_heatmap(ramp[0].numpy(), image, 1.0), image)
    with pytest.raises(AssertionError, match=r"\[1, H, W\] or \[3, H, W\], got \(2, 3, 3\)"):
        convert_overlay_heatmap(torch.ones(2, 3, 3))


def test_colors_of_a_heatmap() -> None:
    thirds = convert_overlay_heatmap(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert thirds.tolist() == [[[0, 0, 128], [0, 212, 255]], [[255, 212, 0], [128, 0, 0]]]
    brightness = convert_overlay_heatmap(torch.arange(12.0).reshape(3, 2, 2))
    assert brightness.tolist() == [
        [[54, 255, 202], [146, 255, 110]],
        [[242, 255, 14], [255, 176, 0]],
    ]


def test_blend() -> None:
    over, under = np.full((1, 1), 255, np.uint8), np.zeros((1, 1), np.uint8)
    assert blend(over, under, 0.25)[0, 0] == 191
    assert blend(over, under, 0.25).dtype == np.uint8


class Canvas:
    """A window whose user presses keys, or closes it, while it waits."""

    def __init__(self, *events: tuple[str, str | None]) -> None:
        self.events = list(events)
        self.handlers: dict[str, Any] = {}
        self.canvas = self

    def mpl_connect(self, name: str, handler: Any) -> str:
        self.handlers[name] = handler
        return name

    def mpl_disconnect(self, name: str) -> None:
        del self.handlers[name]

    def start_event_loop(self, timeout: float) -> None:
        if self.events:
            name, key = self.events.pop(0)
            self.handlers[name](type("Event", (), {"name": name, "key": key}))


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([("key_press_event", " ")], 0),
        ([("key_press_event", "x"), ("close_event", None)], 1),
        ([], 0),
    ],
)
def test_wait_continue(events: list, outcome: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    canvas = Canvas(*events)
    assert wait_continue(canvas, timeout=0.01 if not events else 5.0) == outcome
    assert not canvas.handlers and not canvas.events


def test_img_from_canvas() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 1), dpi=10)
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    figure.set_facecolor((1.0, 0.0, 0.0))
    image = img_from_canvas(agg.FigureCanvasAgg(figure))
    assert image.shape == (10, 20, 3) and image[0, 0].tolist() == [255, 0, 0]
