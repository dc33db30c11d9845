"""A writer for ClearML."""

from __future__ import annotations

import os
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
from fasttrain.visualization.tracking.base import SUFFIX_TYPE, TrackingBackend


@VISBACKENDS.register_module()
class ClearMLVisBackend(TrackingBackend):
    """ClearML.

    Args:
        save_dir: not used; the service keeps everything.
        init_kwargs: arguments of `clearml.Task.init`.
        artifact_suffix: endings of the files of the work folder that are kept at the end.
    """

    def __init__(
        self,
        save_dir: str | None = None,
        init_kwargs: dict | None = None,
        artifact_suffix: SUFFIX_TYPE = (".py", ".pth"),
    ) -> None:
        super().__init__(save_dir, init_kwargs)
        self._artifact_suffix = artifact_suffix

    def _init_env(self) -> None:
        self._clearml = require("clearml")
        self._task = self._clearml.Task.init(**self._init_kwargs)
        self._logger = self._task.get_logger()

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The `clearml` module."""
        return self._clearml

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config."""
        self.cfg = config
        self._task.connect_configuration(config.to_dict())

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image."""
        self._logger.report_image(title=name, series=name, iteration=step, image=image)

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar."""
        if is_number(value):
            self._logger.report_scalar(
                title=name, series=name, value=to_number(value), iteration=step
            )

    def close(self) -> None:
        """Keep the files of the work folder and finish the task."""
        if hasattr(self, "_clearml"):
            for path in self._artifacts(self._artifact_suffix):
                self._task.upload_artifact(os.path.basename(path), path)
            self._task.close()
