"""A writer for Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from fasttrain.registry import VISBACKENDS
from fasttrain.visualization.base_backend import Scalar, force_init_env, require
from fasttrain.visualization.tracking.base import TrackingBackend


@VISBACKENDS.register_module()
class WandbVisBackend(TrackingBackend):
    """Weights & Biases.

    Args:
        save_dir: the folder for its local files.
        init_kwargs: arguments of `wandb.init`.
        define_metric_cfg: metric -> summary, or a list of arguments of `wandb.define_metric`.
        commit: whether each record ends a step.
        log_code_name: name under which the code is saved.
        watch_kwargs: arguments of `wandb.watch`.
    """

    def __init__(
        self,
        save_dir: str,
        init_kwargs: dict | None = None,
        define_metric_cfg: dict | list | None = None,
        commit: bool | None = True,
        log_code_name: str | None = None,
        watch_kwargs: dict | None = None,
    ) -> None:
        super().__init__(save_dir, init_kwargs)
        self._define_metric_cfg = define_metric_cfg
        self._commit = commit
        self._log_code_name = log_code_name
        self._watch_kwargs = watch_kwargs or {}

    def _init_env(self) -> None:
        os.makedirs(self._save_dir, exist_ok=True)
        self._wandb = require("wandb")
        self._init_kwargs.setdefault("dir", self._save_dir)
        self._wandb.init(**self._init_kwargs)
        rules = self._define_metric_cfg or []
        if isinstance(rules, dict):
            rules = [{"name": name, "summary": summary} for name, summary in rules.items()]
        for rule in rules:
            self._wandb.define_metric(**rule)

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The `wandb` module."""
        return self._wandb

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config and the code."""
        self._wandb.config.update(config.to_dict(), allow_val_change=True)
        self._wandb.run.log_code(name=self._log_code_name)

    @force_init_env
    def add_graph(self, model: nn.Module, data_batch: Sequence[dict], **kwargs: Any) -> None:
        """Watch the model."""
        self._wandb.watch(model, **self._watch_kwargs)

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image."""
        self._wandb.log({name: self._wandb.Image(image)}, commit=self._commit)

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar."""
        self._wandb.log({name: value}, commit=self._commit)

    @force_init_env
    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record many scalars as one step."""
        self._wandb.log(scalar_dict, commit=self._commit)

    def close(self) -> None:
        """Finish the run."""
        if hasattr(self, "_wandb"):
            self._wandb.finish()
