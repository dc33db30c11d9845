import warnings
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.visualization import Visualizer

pytest.importorskip("matplotlib")
T = torch.tensor
GRAY = np.full((40, 60, 3), 100, np.uint8)
MASK = np.zeros((40, 60), bool)
MASK[5:15, 10:30] = True


def draw(method: str, *args: Any, **kwargs: Any) -> np.ndarray:
    """The drawn image; checks that the call can be chained."""
    visualizer = Visualizer(image=GRAY)
    assert getattr(visualizer, method)(*args, **kwargs) is visualizer
    image = visualizer.get_image()
    assert image.shape == GRAY.shape and image.dtype == np.uint8
    return image


def changed(image: np.ndarray) -> np.ndarray:
    return (image != GRAY).any(axis=-1)


@pytest.mark.parametrize("shape", [(40, 60, 3), (7, 3, 3), (201, 333, 3)])
def test_an_image_comes_back_as_it_was(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    visualizer = Visualizer(image=image)
    np.testing.assert_array_equal(visualizer.get_image(), image)
    visualizer.set_image(image[..., 0])
    assert visualizer.get_image().shape == shape
    assert (visualizer.width, visualizer.height) == (shape[1], shape[0])


def test_no_image() -> None:
    with pytest.raises(AssertionError, match=r"Please set image using `set_image`"):
        Visualizer().get_image()
    with pytest.raises(AssertionError, match=r"the image must be an array, got None"):
        Visualizer().set_image(None)  # type: ignore[arg-type]


def test_boxes() -> None:
    image = draw("draw_bboxes", T([10, 5, 30, 15]), edge_colors="r", alpha=1, line_widths=1)
    assert image[5, 20, 0] > 150 > image[5, 20, 1], "the upper edge is red"
    assert not changed(image)[8:12, 14:26].any(), "the inside is untouched"
    filled = draw("draw_bboxes", T([[10, 5, 30, 15]]), face_colors=(0, 0, 255), alpha=1)
    assert filled[10, 20].tolist() == [0, 0, 255]
    two = draw("draw_bboxes", np.array([[1, 1, 5, 5], [30, 20, 40, 30]]), edge_colors=["r", "b"])
    assert changed(two)[1, 3] and changed(two)[20, 35]


def test_texts() -> None:
    image = draw("draw_texts", "text", T([10, 5]), colors="r", font_sizes=12)
    rows, columns = np.nonzero(changed(image))
    assert rows.min() >= 4 and columns.min() >= 9 and (image[..., 0] > 200).any()
    boxed = draw(
        "draw_texts",
        ["a", "b"],
        T([[5, 5], [30, 20]]),
        colors=["r", (0, 0, 255)],
        font_sizes=[8, 10],
        vertical_alignments=["top", "bottom"],
        bboxes={"facecolor": "k", "edgecolor": "none"},
    )
    assert (boxed == 0).all(axis=-1).sum() > 50


def test_texts_with_font_properties() -> None:
    font_manager = pytest.importorskip("matplotlib.font_manager")
    font = font_manager.FontProperties(family="monospace")
    plain = draw("draw_texts", "wide", T([5, 5]))
    assert (draw("draw_texts", "wide", T([5, 5]), font_properties=font) != plain).any()
    with pytest.raises(TypeError, match=r"`font_properties` should be .*FontProperties"):
        draw("draw_texts", "wide", T([5, 5]), font_properties=1)


def test_points() -> None:
    image = draw(
        "draw_points", T([[10, 5], [30, 20]]), colors=["r", (0, 0, 255)], sizes=T([20, 20])
    )
    assert image[5, 10].tolist() == [255, 0, 0] and image[20, 30].tolist() == [0, 0, 255]
    assert changed(draw("draw_points", np.array([10, 5]), marker="s"))[5, 10]


def test_lines() -> None:
    image = draw("draw_lines", T([10, 30]), T([5, 5]), colors=(255, 0, 0), line_widths=3)
    assert image[5, 20].tolist() == [255, 0, 0]
    two = draw("draw_lines", T([[0, 59], [0, 59]]), T([[5, 5], [30, 30]]), line_styles=["-", ":"])
    assert changed(two)[5].all() and not changed(two)[30].all() and changed(two)[30].any()


def test_circles() -> None:
    image = draw("draw_circles", T([20, 15]), T([8]), face_colors="b", alpha=1)
    assert image[15, 20].tolist() == [0, 0, 255] and not changed(image)[15, 35]
    two = draw("draw_circles", T([[10.0, 10.0], [40.0, 20.0]]), T([4, 5]))
    assert changed(two)[10, 14] and changed(two)[20, 45] and not changed(two)[20, 40]


def test_polygons() -> None:
    corners = T([[10, 5], [40, 5], [40, 30]])
    image = draw("draw_polygons", corners, face_colors="r", alpha=1)
    assert image[10, 35].tolist() == [255, 0, 0] and not changed(image)[28, 12]
    assert changed(draw("draw_polygons", [corners, np.array([[1, 1], [5, 1], [3, 6]])]))[1, 3]


def test_masks() -> None:
    image = draw("draw_binary_masks", MASK, colors=(255, 0, 0), alphas=0.5)
    np.testing.assert_array_equal(changed(image), MASK)
    assert image[10, 20].tolist() == [178, 50, 50]
    two = draw(
        "draw_binary_masks", torch.from_numpy(np.stack([MASK, ~MASK])), ["r", "b"], [1.0, 1.0]
    )
    assert two[10, 20].tolist() == [255, 0, 0] and two[30, 5].tolist() == [0, 0, 255]


def test_widths_may_be_lists() -> None:
    both = draw("draw_bboxes", T([[5, 5, 20, 20], [30, 5, 50, 20]]), line_widths=[1, 5])
    thin, thick = changed(both)[10, :25].sum(), changed(both)[10, 25:].sum()
    assert thick > thin


@pytest.mark.parametrize(("width", "as_if"), [(0, 1), (99, 2.5)])
def test_widths_are_limited(width: float, as_if: float) -> None:
    for method, shape in (
        ("draw_bboxes", T([5, 5, 20, 20])),
        ("draw_polygons", T([[5, 5], [20, 5], [9, 19]])),
    ):
        limited = draw(method, shape, line_widths=width)
        np.testing.assert_array_equal(limited, draw(method, shape, line_widths=as_if))


@pytest.mark.parametrize(
    ("name", "method", "args"),
    [
        ("bbox", "draw_bboxes", (T([1, 1, 200, 20]),)),
        ("text", "draw_texts", ("a", T([200, 5]))),
        ("line", "draw_lines", (T([1, 200]), T([2, 6]))),
        ("circle", "draw_circles", (T([5, 5]), T([10]))),
        ("polygon", "draw_polygons", (T([[1, 1], [2, 200], [3, 4]]),)),
    ],
)
def test_what_is_outside_warns_and_moves_nothing(name: str, method: str, args: tuple) -> None:
    with pytest.warns(UserWarning, match=rf"The {name} is out of bounds") as caught:
        image = draw(method, *args)
    assert len(caught) == 1
    assert image[35, 55].tolist() == [100, 100, 100]


@pytest.mark.parametrize(
    ("method", "args", "error", "text"),
    [
        ("draw_bboxes", ([1, 1, 2, 2],), TypeError, r"`bboxes` should be .* but got <class"),
        ("draw_bboxes", (T([1, 1, 2]),), AssertionError, r"should be \(N, 4\), but got \(1, 3\)"),
        ("draw_bboxes", (T([9, 1, 2, 2]),), AssertionError, r"left <= right, top <= bottom"),
        ("draw_texts", ("a", [5, 5]), TypeError, r"`positions` should be"),
        ("draw_texts", ("a", T([5, 5, 5])), AssertionError, r"shape of \(1, 2\), but got \(1, 3\)"),
        ("draw_texts", (["a", "b"], T([[5, 5]])), AssertionError, r"\(2, 2\), but got \(1, 2\)"),
        ("draw_texts", ("a", T([5, 5]), "x"), TypeError, r"`font_sizes` should be"),
        (
            "draw_texts", (["a", "b"], T([[5, 5], [6, 6]]), [5]), AssertionError,
            r"The length of font_sizes must equal with or greater than 2, but got 1",
        ),
        ("draw_points", (T([5, 5, 5]),), AssertionError, r"should be \(N, 2\), but got \(1, 3\)"),
        ("draw_lines", (T([1, 5, 7]), T([1, 5, 7])), AssertionError, r"should be \(N, 2\)"),
        ("draw_lines", (T([1, 5]), T([[1, 5]])), AssertionError, r"should have the same shape"),
        ("draw_circles", (T([[5, 5]]), T([1, 2])), AssertionError, r"\(radius.shape, 2\)"),
        ("draw_polygons", (T([1, 1]),), AssertionError, r"should be \(M, 2\), but got \(2,\)"),
        ("draw_polygons", ("x",), TypeError, r"`polygons` should be"),
        ("draw_binary_masks", (MASK.astype(int),), AssertionError, r"np.bool_, but got int64"),
        ("draw_binary_masks", (MASK[:3],), AssertionError, r"must have the same shape with image"),
        (
            "draw_binary_masks", (np.stack([MASK, MASK]), ["r"]), AssertionError,
            r"The length of colors must equal with or greater than 2, but got 1",
        ),
        ("draw_binary_masks", (MASK, [(1, 2)]), AssertionError, r"3 values, got \(1, 2\)"),
        ("draw_binary_masks", ([MASK],), TypeError, r"`binary_masks` should be"),
    ],
)  # fmt: skip
def test_refuses(method: str, args: tuple, error: type[Exception], text: str) -> None:
    with warnings.catch_warnings(), pytest.raises(error, match=text):
        draw(method, *args)
