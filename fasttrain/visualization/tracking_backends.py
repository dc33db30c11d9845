"""Writers for tracking services; each needs its package only when it is used."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fasttrain.logging import print_log
from fasttrain.registry import VISBACKENDS
from fasttrain.visualization.base_backend import (
    BaseVisBackend,
    Scalar,
    check_scalars,
    force_init_env,
    is_number,
    require,
    to_number,
)

SUFFIX_TYPE = Sequence[str] | str


class _TrackingBackend(BaseVisBackend):
    """What the services have in common: scalars go one by one through `add_scalar`.

    Args:
        save_dir: the folder for local files, if the service has any.
        init_kwargs: arguments for the service's start.
    """

    def __init__(self, save_dir: str | None = None, init_kwargs: dict | None = None) -> None:
        super().__init__(save_dir)  # type: ignore[arg-type]
        self._init_kwargs = dict(init_kwargs or {})
        self.cfg: Any = None

    @force_init_env
    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record many scalars; what is no number is left out."""
        check_scalars(scalar_dict)
        for name, value in scalar_dict.items():
            self.add_scalar(name, value, step, **kwargs)

    def _artifacts(self, suffix: SUFFIX_TYPE) -> Iterator[str]:
        """The files in the run's work folder with one of the endings."""
        endings = (suffix,) if isinstance(suffix, str) else tuple(suffix)
        if self.cfg is not None and self.cfg.get("work_dir"):
            for path in sorted(Path(self.cfg["work_dir"]).rglob("*")):
                if path.is_file() and path.name.endswith(endings):
                    yield str(path)


@VISBACKENDS.register_module()
class WandbVisBackend(_TrackingBackend):
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


@VISBACKENDS.register_module()
class MLflowVisBackend(_TrackingBackend):
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
        mlflow.set_tracking_uri(self._tracking_uri or f"file:{os.path.abspath(self._save_dir)}")
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
        """Record the config's values under dotted names."""
        self.cfg = config
        tracked = config.to_dict()
        if self._tracked_config_keys is not None:
            tracked = {key: tracked[key] for key in self._tracked_config_keys}
        self._mlflow.log_params(self._flatten(tracked))

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
                self._mlflow.log_artifact(path)
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


@VISBACKENDS.register_module()
class ClearMLVisBackend(_TrackingBackend):
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


@VISBACKENDS.register_module()
class NeptuneVisBackend(_TrackingBackend):
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


@VISBACKENDS.register_module()
class DVCLiveVisBackend(_TrackingBackend):
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


@VISBACKENDS.register_module()
class AimVisBackend(_TrackingBackend):
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
