"""A writer for DVCLive."""

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
from fasttrain.visualization.tracking.base import SUFFIX_TYPE, TrackingBackend


@VISBACKENDS.register_module()
class DVCLiveVisBackend(TrackingBackend):
    """DVCLive.

    Args:
        save_dir: its folder.
        artifact_suffix: endings of the files of the work folder that are kept at the end.
        init_kwargs: arguments of `dvclive.Live`.
    """

    def __init__(
        self,
        save_dir: str,
        artifact_suffix: SUFFIX_TYPE = (".json", ".py", "yaml"),
        init_kwargs: dict | None = None,
    ) -> None:
        super().__init__(save_dir, init_kwargs)
        self._artifact_suffix = artifact_suffix

    def _init_env(self) -> None:
        live = require("dvclive").Live
        defaults = {"dir": self._save_dir, "save_dvc_exp": False, "cache_images": True}
        self._dvclive = live(**{**defaults, **self._init_kwargs})

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The `Live` object."""
        return self._dvclive

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config's values."""
        self.cfg = config
        self._dvclive.log_params(self._to_dvc_paramlike(config))

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image."""
        assert image.dtype == np.uint8, f"an image must be uint8, got {image.dtype}"
        self._dvclive.step = step
        self._dvclive.log_image(f"{name}.png", image)

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar."""
        if is_number(value):
            self._dvclive.step = step
            self._dvclive.log_metric(name, to_number(value))

    def close(self) -> None:
        """Keep the files of the work folder and finish."""
        if hasattr(self, "_dvclive"):
            for path in self._artifacts(self._artifact_suffix):
                self._dvclive.log_artifact(path)
            self._dvclive.end()

    def _to_dvc_paramlike(self, value: Any) -> Any:
        """Nested values as what DVC takes: numbers, texts, lists and dicts."""
        if hasattr(value, "to_dict"):
            value = value.to_dict()
        if isinstance(value, dict):
            return {str(key): self._to_dvc_paramlike(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self._to_dvc_paramlike(entry) for entry in value]
        if hasattr(value, "tolist"):
            return value.tolist()
        return value if isinstance(value, int | float | str) else str(value)
