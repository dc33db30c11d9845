"""A writer for Aim."""

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
from fasttrain.visualization.tracking.base import TrackingBackend


@VISBACKENDS.register_module()
class AimVisBackend(TrackingBackend):
    """Aim.

    Args:
        save_dir: the folder of its repository when `init_kwargs` names none.
        init_kwargs: arguments of `aim.Run`.
    """

    def _init_env(self) -> None:
        aim = require("aim")
        if self._save_dir is not None:
            os.makedirs(self._save_dir, exist_ok=True)
            self._init_kwargs.setdefault("repo", self._save_dir)
        self._aim_run = aim.Run(**self._init_kwargs)

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The run."""
        return self._aim_run

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config."""
        self._aim_run["hparams"] = config.to_dict()

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image."""
        self._aim_run.track(name=name, value=require("aim").Image(image), step=step)

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar."""
        if is_number(value):
            self._aim_run.track(name=name, value=to_number(value), step=step)

    def close(self) -> None:
        """Finish the run."""
        if hasattr(self, "_aim_run"):
            self._aim_run.close()
