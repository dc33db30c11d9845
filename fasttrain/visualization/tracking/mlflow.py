"""A writer for MLflow."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.logging import print_log
from fasttrain.registry import VISBACKENDS
from fasttrain.visualization.base_backend import (
    Scalar,
    check_scalars,
    force_init_env,
    is_number,
    require,
    to_number,
)
from fasttrain.visualization.tracking.base import SUFFIX_TYPE, TrackingBackend


@VISBACKENDS.register_module()
class MLflowVisBackend(TrackingBackend):
    """MLflow.

    Args:
        save_dir: the folder of the store when there is no `tracking_uri`.
        exp_name: the experiment; "Default" when there is none.
        run_name: the run.
        tags: tags of the run.
        params: parameters of the run.
        tracking_uri: the server.
        artifact_suffix: endings of the files of the work folder that are kept at the end.
        tracked_config_keys: the config's keys to record; all for `None`.
        artifact_location: where the experiment's files are kept.
    """

    def __init__(
        self,
        save_dir: str,
        exp_name: str | None = None,
        run_name: str | None = None,
        tags: dict | None = None,
        params: dict | None = None,
        tracking_uri: str | None = None,
        artifact_suffix: SUFFIX_TYPE = (".json", ".log", ".py", "yaml"),
        tracked_config_keys: dict | None = None,
        artifact_location: str | None = None,
    ) -> None:
        super().__init__(save_dir)
        self._exp_name = exp_name or "Default"
        self._run_name = run_name
        self._tags = tags
        self._params = params
        self._tracking_uri = tracking_uri
        self._artifact_suffix = artifact_suffix
        self._tracked_config_keys = tracked_config_keys
        self._artifact_location = artifact_location

    def _init_env(self) -> None:
        os.makedirs(self._save_dir, exist_ok=True)
        self._mlflow = mlflow = require("mlflow")
        mlflow.set_tracking_uri(self._tracking_uri or Path(self._save_dir).absolute().as_uri())
        if mlflow.get_experiment_by_name(self._exp_name) is None:
            mlflow.create_experiment(self._exp_name, artifact_location=self._artifact_location)
        mlflow.set_experiment(self._exp_name)
        if self._run_name is not None:
            mlflow.set_tag("mlflow.runName", self._run_name)
        if self._tags is not None:
            mlflow.set_tags(self._tags)
        if self._params is not None:
            mlflow.log_params(self._params)

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The `mlflow` module."""
        return self._mlflow

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config's values under dotted names, and its text."""
        self.cfg = config
        tracked = config.to_dict()
        if self._tracked_config_keys is not None:
            tracked = {key: tracked[key] for key in self._tracked_config_keys}
        self._mlflow.log_params(self._flatten(tracked))
        self._mlflow.log_text(config.pretty_text, "config.py")

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image."""
        self._mlflow.log_image(image, name)

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar; anything else is skipped with a warning."""
        if is_number(value):
            self._mlflow.log_metric(name, to_number(value), step)
        else:
            print_log(
                f"Got type: {type(value)}, but a number is expected. skip it! ({name})",
                logger="current",
                level=logging.WARNING,
            )

    @force_init_env
    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record many scalars."""
        check_scalars(scalar_dict)
        numbers = {name: to_number(v) for name, v in scalar_dict.items() if is_number(v)}
        self._mlflow.log_metrics(numbers, step)

    def close(self) -> None:
        """Keep the files of the work folder and finish the run."""
        if hasattr(self, "_mlflow"):
            for path in self._artifacts(self._artifact_suffix):
                folder = os.path.relpath(os.path.dirname(path), self.cfg["work_dir"])
                self._mlflow.log_artifact(path, "" if folder == "." else folder)
            self._mlflow.end_run()

    def _flatten(self, d: Any, parent_key: str = "", sep: str = ".") -> dict:
        """Nested dicts, and lists of dicts, as one dict with dotted names."""
        items: dict[str, Any] = {}
        for key, value in d.items():
            name = f"{parent_key}{sep}{key}" if parent_key else str(key)
            if isinstance(value, MutableMapping):
                items.update(self._flatten(value, name, sep))
            elif isinstance(value, list) and any(isinstance(v, MutableMapping) for v in value):
                numbered = {str(index): entry for index, entry in enumerate(value)}
                items.update(self._flatten(numbered, name, sep))
            else:
                items[name] = value
        return items
