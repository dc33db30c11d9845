"""The visualizer of a run: draws images, and passes what is recorded on to its writers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fasttrain.dist import master_only
from fasttrain.registry import VISBACKENDS, VISUALIZERS
from fasttrain.utils.manager import ManagerMixin
from fasttrain.visualization.base_backend import BaseVisBackend, require
from fasttrain.visualization.drawing import Drawing
from fasttrain.visualization.featmap import draw_featmap
from fasttrain.visualization.utils import wait_continue

Backends = Sequence[dict | BaseVisBackend] | BaseVisBackend | dict | None


@VISUALIZERS.register_module()
class Visualizer(Drawing, ManagerMixin):
    """Draws on images and hands images, scalars and configs to writers; rank 0 only.

    Args:
        name: the name that the instance is kept under.
        image: an image to draw on, uint8.
        vis_backends: writers or their configs, each with a `name` of its own where a class is
            used twice.
        save_dir: the folder for the writers; without one they are not built.
        fig_save_cfg: arguments of the figure that is drawn on.
        fig_show_cfg: arguments of the figure that `show` opens.

    Raises:
        TypeError: a writer is neither a config nor a writer.
        RuntimeError: two writers have one name.
    """

    def __init__(
        self,
        name: str = "visualizer",
        image: np.ndarray | None = None,
        vis_backends: Backends = None,
        save_dir: str | None = None,
        fig_save_cfg: dict[str, Any] = {"frameon": False},  # noqa: B006  read only
        fig_show_cfg: dict[str, Any] = {"frameon": False},  # noqa: B006  read only
    ) -> None:
        super().__init__(name)
        self._dataset_meta: dict | None = None
        self._vis_backends: dict[str, BaseVisBackend] = {}
        self.fig_save_cfg = fig_save_cfg
        self.fig_show_cfg = fig_show_cfg
        self._image = None
        self.manager: Any = None  # of the window, once there is one
        self._build_backends(vis_backends, save_dir)
        if image is not None:
            self.set_image(image)

    def _build_backends(self, vis_backends: Backends, save_dir: str | None) -> None:
        if vis_backends is None:
            return
        if isinstance(vis_backends, dict | BaseVisBackend):
            vis_backends = [vis_backends]
        wrong = "vis_backends must be a list of dicts or a list of BaseBackend instances"
        if not isinstance(vis_backends, Sequence):
            raise TypeError(f"{wrong}, but got {type(vis_backends)}")
        for entry in vis_backends:
            if isinstance(entry, dict):
                cfg = dict(entry)
                name = cfg.pop("name", None)
                if save_dir is not None:
                    cfg.setdefault("save_dir", str(Path(save_dir) / "vis_data"))
                elif cfg.get("save_dir") is None:
                    warnings.warn(
                        f"Failed to add {cfg.get('type')}, please provide the `save_dir` argument.",
                        stacklevel=3,
                    )
                    continue
                backend = VISBACKENDS.build(cfg)
            elif isinstance(entry, BaseVisBackend):
                name, backend = None, entry
            else:
                raise TypeError(f"{wrong}, but got {type(entry)}")
            name = name or type(backend).__name__
            if name in self._vis_backends:
                raise RuntimeError(f"vis_backend name {name} already exists")
            self._vis_backends[name] = backend

    @property
    def dataset_meta(self) -> dict | None:
        """Facts about the data, such as the names of classes."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta

    def get_backend(self, name: str) -> BaseVisBackend:
        """The writer of a name; `None` when there is none."""
        return self._vis_backends.get(name)  # type: ignore[return-value]

    # --- showing -----------------------------------------------------------------------------
    @master_only
    def show(
        self,
        drawn_img: np.ndarray | None = None,
        win_name: str = "image",
        wait_time: float = 0.0,
        continue_key: str = " ",
        backend: str = "matplotlib",
    ) -> None:
        """Show an image (the drawn one by default) in a window.

        Args:
            wait_time: seconds to show it for; 0 until `continue_key`.
            backend: "matplotlib" or "cv2".
        """
        image = self.get_image() if drawn_img is None else drawn_img
        if backend == "cv2":
            cv2 = require("cv2", "opencv-python")
            cv2.namedWindow(winname=f"{id(self)}")
            cv2.setWindowTitle(f"{id(self)}", win_name)
            cv2.imshow(str(id(self)), image[..., ::-1])
            cv2.waitKey(int(np.ceil(wait_time * 1000)))
            return
        if backend != "matplotlib":
            raise ValueError(f'backend should be "matplotlib" or "cv2", but got {backend}')
        if drawn_img is None and self._image is None:
            return
        self._init_manager(win_name)
        figure = self.manager.canvas.figure
        figure.set_size_inches(image.shape[1] / figure.dpi, image.shape[0] / figure.dpi)
        axes = self.ax_show
        axes.cla()
        axes.axis(False)
        axes.imshow(image, interpolation="none")
        figure.subplots_adjust(left=0, right=1, bottom=0, top=1)
        figure.canvas.draw_idle()
        wait_continue(figure, timeout=wait_time, continue_key=continue_key)

    def _init_manager(self, win_name: str) -> None:
        """Open the window, or take the one that is open."""
        pyplot = require("matplotlib.pyplot", "matplotlib")
        if self.manager is None or not pyplot.fignum_exists(self.manager.num):
            figure = pyplot.figure(**self.fig_show_cfg)
            self.manager = figure.canvas.manager
            self.ax_show = figure.add_subplot()
        if self.manager is not None:
            self.manager.set_window_title(win_name)

    # --- recording ---------------------------------------------------------------------------
    @master_only
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config."""
        for backend in self._vis_backends.values():
            backend.add_config(config, **kwargs)

    @master_only
    def add_graph(self, model: nn.Module, data_batch: Sequence[dict], **kwargs: Any) -> None:
        """Record the model."""
        for backend in self._vis_backends.values():
            backend.add_graph(model, data_batch, **kwargs)

    @master_only
    def add_image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        """Record an image of shape [height, width, 3], RGB, uint8."""
        for backend in self._vis_backends.values():
            backend.add_image(name, image, step)

    @master_only
    def add_scalar(self, name: str, value: int | float, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar."""
        for backend in self._vis_backends.values():
            backend.add_scalar(name, value, step, **kwargs)

    @master_only
    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record many scalars, for writers of files also into `file_path`."""
        for backend in self._vis_backends.values():
            backend.add_scalars(scalar_dict, step, file_path, **kwargs)

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: int = 0,
        step: int = 0,
    ) -> None:
        """Draw a sample with its truth and prediction; subclasses know how."""

    def close(self) -> None:
        """Close the writers, and the window."""
        for backend in self._vis_backends.values():
            backend.close()
        if self.manager is not None:
            require("matplotlib.pyplot", "matplotlib").close(self.manager.canvas.figure)
            self.manager = None

    draw_featmap = staticmethod(master_only(draw_featmap))

    @classmethod
    def get_instance(cls, name: str, **kwargs: Any) -> Visualizer:
        """The instance of a name; the first call builds it."""
        instance: Visualizer = super().get_instance(name, **kwargs)
        return instance
