"""Drawing of boxes, texts, points, lines, circles, polygons and masks onto an image."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor

from fasttrain.dist import master_only
from fasttrain.visualization.base_backend import require
from fasttrain.visualization.utils import (
    blend,
    check_type,
    check_type_and_length,
    color_str2rgb,
    color_val_matplotlib,
    img_from_canvas,
    tensor2ndarray,
    value2list,
)

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

Array = np.ndarray | Tensor
Colors = str | tuple | list[str] | list[tuple]
Numbers = int | float | list[int | float]
D = TypeVar("D", bound="Drawing")

_ARRAY = (np.ndarray, Tensor)


class Drawing:
    """An image and the figure it is drawn on, made when it is first needed.

    Coordinates are pixels from the upper left; colors are names or RGB in 0..255; a list gives
    each thing its own. All methods return the object, so that calls can be chained.
    """

    _image: np.ndarray | None
    fig_save_cfg: dict[str, Any]
    fig_show_cfg: dict[str, Any]

    def _initialize_fig(self, fig_cfg: dict[str, Any]) -> tuple[Any, Any, Any]:
        """A figure's canvas, the figure, and its axes, which fill it and show no frame."""
        figure_module = require("matplotlib.figure", "matplotlib")
        canvas_type = require("matplotlib.backends.backend_agg", "matplotlib").FigureCanvasAgg
        figure = figure_module.Figure(**fig_cfg)
        axes = figure.add_subplot()
        axes.axis(False)
        figure.subplots_adjust(left=0, right=1, bottom=0, top=1)
        return canvas_type(figure), figure, axes

    @cached_property
    def _canvas(self) -> tuple[Any, Any, Any]:
        return self._initialize_fig(self.fig_save_cfg)

    @property
    def fig_save_canvas(self) -> Any:
        """The canvas that is drawn on."""
        return self._canvas[0]

    @property
    def fig_save(self) -> Any:
        """The figure that is drawn on."""
        return self._canvas[1]

    @property
    def ax_save(self) -> Any:
        """The axes that are drawn on."""
        return self._canvas[2]

    @property
    def dpi(self) -> float:
        """Dots per inch of the figure."""
        return self.fig_save.get_dpi()

    @master_only
    def set_image(self, image: np.ndarray) -> None:
        """Begin with an image of shape [height, width] or [height, width, 3], uint8."""
        assert image is not None, "the image must be an array, got None"
        image = image.astype("uint8")
        self._image = image
        self.width, self.height = image.shape[1], image.shape[0]
        self._default_font_size = max(np.sqrt(self.height * self.width) // 90, 10)
        margin = 1e-2  # keeps the canvas from being rounded down to one pixel less
        self.fig_save.set_size_inches(
            (self.width + margin) / self.dpi, (self.height + margin) / self.dpi
        )
        self.ax_save.cla()
        self.ax_save.axis(False)
        self.ax_save.imshow(
            image,
            extent=(0, self.width, self.height, 0),
            interpolation="none",
            cmap="gray" if image.ndim == 2 else None,
        )
        self.ax_save.set_autoscale_on(False)

    @master_only
    def get_image(self) -> np.ndarray:
        """The image with what was drawn, shape [height, width, 3], uint8."""
        assert self._image is not None, "Please set image using `set_image`"
        return img_from_canvas(self.fig_save_canvas).astype("uint8")

    def _is_posion_valid(self, position: np.ndarray) -> bool:
        """Whether all points lie within the image."""
        x, y = position[..., 0], position[..., 1]
        return bool(((x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)).all())

    def _warn_outside(self, name: str, position: np.ndarray) -> None:
        if not self._is_posion_valid(position):
            warnings.warn(
                f"Warning: The {name} is out of bounds, the drawn {name} may not be in the image",
                UserWarning,
                stacklevel=3,
            )

    @master_only
    def draw_points(
        self: D,
        positions: Array,
        colors: Colors = "g",
        marker: str | None = None,
        sizes: Array | None = None,
    ) -> D:
        """Draw points of shape [N, 2] or [2]."""
        check_type("positions", positions, _ARRAY)
        points = _rows(tensor2ndarray(positions))
        assert points.shape[-1] == 2, (
            f"The shape of `positions` should be (N, 2), but got {points.shape}"
        )
        self.ax_save.scatter(
            points[:, 0],
            points[:, 1],
            c=color_val_matplotlib(colors),
            s=None if sizes is None else tensor2ndarray(sizes),
            marker=marker,
        )
        return self

    @master_only
    def draw_texts(
        self: D,
        texts: str | list[str],
        positions: Array,
        font_sizes: int | list[int] | None = None,
        colors: Colors = "g",
        vertical_alignments: str | list[str] = "top",
        horizontal_alignments: str | list[str] = "left",
        font_families: str | list[str] = "sans-serif",
        bboxes: dict | list[dict] | None = None,
        font_properties: FontProperties | list[FontProperties] | None = None,
    ) -> D:
        """Write texts at positions of shape [N, 2] or [2]."""
        check_type("texts", texts, (str, list))
        texts = value2list(texts, str, 1)
        count = len(texts)
        check_type("positions", positions, _ARRAY)
        points = _rows(tensor2ndarray(positions))
        assert points.shape == (count, 2), (
            f"`positions` should have the shape of ({count}, 2), but got {points.shape}"
        )
        self._warn_outside("text", points)
        sizes = self._default_font_size if font_sizes is None else font_sizes
        check_type_and_length("font_sizes", sizes, (int, float, list), count)
        if font_properties is not None:
            font_type = require("matplotlib.font_manager", "matplotlib").FontProperties
            check_type_and_length("font_properties", font_properties, (font_type, list), count)
        columns = {
            "size": value2list(sizes, (int, float), count),
            "color": color_val_matplotlib(_checked_list("colors", colors, (str, tuple), count)),
            "verticalalignment": _checked_list(
                "vertical_alignments", vertical_alignments, str, count
            ),
            "horizontalalignment": _checked_list(
                "horizontal_alignments", horizontal_alignments, str, count
            ),
            "family": _checked_list("font_families", font_families, str, count),
            "bbox": _checked_list("bboxes", bboxes, (dict, type(None)), count),
        }
        if font_properties is not None:
            columns["fontproperties"] = (
                font_properties if isinstance(font_properties, list) else [font_properties] * count
            )
        for index, text in enumerate(texts):
            style = {name: column[index] for name, column in columns.items()}
            if "fontproperties" in style:  # it holds the family; the size stays an own setting
                style = {"fontproperties": style.pop("fontproperties"), **style}
                style.pop("family")
            self.ax_save.text(*points[index], text, **style)
        return self

    @master_only
    def draw_lines(
        self: D,
        x_datas: Array,
        y_datas: Array,
        colors: Colors = "g",
        line_styles: str | list[str] = "-",
        line_widths: Numbers = 2,
    ) -> D:
        """Draw lines; x and y have the shape [N, 2] or [2]: begin and end."""
        check_type("x_datas", x_datas, _ARRAY)
        check_type("y_datas", y_datas, _ARRAY)
        x, y = tensor2ndarray(x_datas), tensor2ndarray(y_datas)
        assert x.shape == y.shape, "`x_datas` and `y_datas` should have the same shape"
        assert x.shape[-1] == 2, f"The shape of `x_datas` should be (N, 2), but got {x.shape}"
        segments = np.stack([_rows(x), _rows(y)], axis=-1)
        self._warn_outside("line", segments)
        collections = require("matplotlib.collections", "matplotlib")
        lines = collections.LineCollection(
            segments,
            colors=color_val_matplotlib(colors),
            linestyles=line_styles,
            linewidths=line_widths,
        )
        self.ax_save.add_collection(lines)
        return self

    @master_only
    def draw_circles(
        self: D,
        center: Array,
        radius: Array,
        edge_colors: Colors = "g",
        line_styles: str | list[str] = "-",
        line_widths: Numbers = 2,
        face_colors: Colors = "none",
        alpha: float | int = 0.8,
    ) -> D:
        """Draw circles; `center` has the shape [N, 2] or [2], `radius` [N]."""
        check_type("center", center, _ARRAY)
        check_type("radius", radius, _ARRAY)
        centers, radii = _rows(tensor2ndarray(center)), tensor2ndarray(radius)
        assert centers.shape == (radii.shape[0], 2), (
            f"The shape of `center` should be (radius.shape, 2), but got {centers.shape}"
        )
        reach = radii[:, None]
        self._warn_outside("circle", np.concatenate([centers - reach, centers + reach]))
        circle = require("matplotlib.patches", "matplotlib").Circle
        self._add_patches(
            [circle(tuple(point), size) for point, size in zip(centers, radii, strict=True)],
            (edge_colors, line_styles, line_widths, face_colors, alpha),
        )
        return self

    @master_only
    def draw_bboxes(
        self: D,
        bboxes: Array,
        edge_colors: Colors = "g",
        line_styles: str | list[str] = "-",
        line_widths: Numbers = 2,
        face_colors: Colors = "none",
        alpha: int | float = 0.8,
    ) -> D:
        """Draw boxes of shape [N, 4] or [4]: left, top, right, bottom."""
        check_type("bboxes", bboxes, _ARRAY)
        boxes = _rows(tensor2ndarray(bboxes))
        assert boxes.shape[-1] == 4, (
            f"The shape of `bboxes` should be (N, 4), but got {boxes.shape}"
        )
        assert (boxes[:, :2] <= boxes[:, 2:]).all(), "a box must have left <= right, top <= bottom"
        self._warn_outside("bbox", boxes.reshape(-1, 2, 2))
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        self._add_polygons(
            list(corners), (edge_colors, line_styles, line_widths, face_colors, alpha)
        )
        return self

    @master_only
    def draw_polygons(
        self: D,
        polygons: Array | list[Array],
        edge_colors: Colors = "g",
        line_styles: str | list[str] = "-",
        line_widths: Numbers = 2,
        face_colors: Colors = "none",
        alpha: int | float = 0.8,
    ) -> D:
        """Draw polygons, each of shape [corners, 2]."""
        check_type("polygons", polygons, (list, *_ARRAY))
        corners = [
            tensor2ndarray(polygon)
            for polygon in (polygons if isinstance(polygons, list) else [polygons])
        ]
        for polygon in corners:
            assert polygon.ndim == 2 and polygon.shape[1] == 2, (
                f"The shape of each polygon in `polygons` should be (M, 2), but got {polygon.shape}"
            )
            self._warn_outside("polygon", polygon)
        self._add_polygons(corners, (edge_colors, line_styles, line_widths, face_colors, alpha))
        return self

    def _add_polygons(self, corners: list[np.ndarray], style: tuple[Any, ...]) -> None:
        polygon = require("matplotlib.patches", "matplotlib").Polygon
        self._add_patches([polygon(points, closed=True) for points in corners], style)

    def _add_patches(self, patches: list[Any], style: tuple[Any, ...]) -> None:
        """Add shapes; widths are at least 1, and limited so as not to hide a small image."""
        edge_colors, line_styles, line_widths, face_colors, alpha = style
        at_most = self._default_font_size / 4
        widths = [
            min(max(width, 1), at_most)
            for width in value2list(line_widths, (int, float), len(patches))
        ]
        collections = require("matplotlib.collections", "matplotlib")
        self.ax_save.add_collection(
            collections.PatchCollection(
                patches,
                alpha=alpha,
                facecolor=color_val_matplotlib(face_colors),
                linestyles=line_styles,
                edgecolors=color_val_matplotlib(edge_colors),
                linewidths=widths,
            )
        )

    @master_only
    def draw_binary_masks(
        self: D, binary_masks: Array, colors: Colors = "g", alphas: float | list[float] = 0.8
    ) -> D:
        """Color the image where masks of shape [N, height, width] or [height, width] are true."""
        check_type("binary_masks", binary_masks, _ARRAY)
        masks = tensor2ndarray(binary_masks)
        assert masks.dtype == np.bool_, (
            f"The dtype of binary_masks should be np.bool_, but got {masks.dtype}"
        )
        masks = masks[None] if masks.ndim == 2 else masks
        image = self.get_image()
        assert masks.shape[1:] == image.shape[:2], (
            "`binary_masks` must have the same shape with image"
        )
        count = len(masks)
        named = _checked_list("colors", colors, (str, tuple), count)
        rgbs = [color_str2rgb(color) if isinstance(color, str) else color for color in named]
        for rgb in rgbs:
            assert len(rgb) == 3, f"a color must have 3 values, got {rgb}"
        shares = _checked_list("alphas", alphas, float, count)
        for mask, rgb, share in zip(masks, rgbs, shares, strict=False):
            colored = np.where(mask[..., None], np.asarray(rgb), image)
            image = blend(image, colored, share)
        self.ax_save.imshow(image, extent=(0, self.width, self.height, 0), interpolation="nearest")
        return self


def _rows(array: np.ndarray) -> np.ndarray:
    return array[None] if array.ndim == 1 else array


def _checked_list(name: str, value: Any, single: type | tuple[type, ...], count: int) -> list[Any]:
    """One entry per thing: a single value is repeated, a list must be long enough."""
    singles = single if isinstance(single, tuple) else (single,)
    check_type_and_length(name, value, (*singles, list), count)
    return value2list(value, single, count)
