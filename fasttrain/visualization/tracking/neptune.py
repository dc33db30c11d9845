"""A writer for Neptune."""

from __future__ import annotations

from typing import Any

import numpy as np

from fasttrain.registry import VISBACKENDS
from fasttrain.visualization.base_backend import (
    Scalar,
    force_init_env,
    is_number,
    require,
    to_number,
)
from fasttrain.visualization.tracking.base import TrackingBackend


@VISBACKENDS.register_module()
class NeptuneVisBackend(TrackingBackend):
    """Neptune.

    Args:
        save_dir: not used; the service keeps everything.
        init_kwargs: arguments of `neptune.init_run`; without any the run stays on this machine.
    """

    def __init__(self, save_dir: str | None = None, init_kwargs: dict | None = None) -> None:
        super().__init__(save_dir, {"mode": "offline"} if init_kwargs is None else init_kwargs)

    def _init_env(self) -> None:
        self._neptune = require("neptune").init_run(**self._init_kwargs)

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The run."""
        return self._neptune

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config as text."""
        file = require("neptune.types", "neptune").File
        self._neptune["config"].upload(file.from_content(config.pretty_text))

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image."""
        file = require("neptune.types", "neptune").File
        self._neptune["images"].append(file.as_image(image / 255.0), name=name, step=step)

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar."""
        if is_number(value):
            self._neptune[name].append(to_number(value), step=step)

    def close(self) -> None:
        """Finish the run."""
        if hasattr(self, "_neptune"):
            self._neptune.stop()
