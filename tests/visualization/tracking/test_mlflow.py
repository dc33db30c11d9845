"""The writer for MLflow."""

from pathlib import Path
from typing import Any
from unittest.mock import call

import torch

from fasttrain import visualization
from fasttrain.config import Config


def test_mlflow(tmp_path: Path, fake: Any, cfg: Config) -> None:
    mlflow = fake("mlflow")
    mlflow.get_experiment_by_name.return_value = None
    backend = visualization.MLflowVisBackend(
        str(tmp_path), "exp", "run", {"t": 1}, {"p": 2}, artifact_suffix=".json"
    )
    backend.add_config(cfg)
    backend.add_scalars({"a": torch.tensor(1.0), "text": "x"}, step=3)
    backend.add_scalar("text", "x")  # type: ignore[arg-type]
    inner = Path(cfg.work_dir) / "inner"
    inner.mkdir()
    (inner / "b.json").write_text("")
    backend.close()
    mlflow.set_tracking_uri.assert_called_once_with(f"file://{tmp_path}")
    mlflow.create_experiment.assert_called_once_with("exp", artifact_location=None)
    mlflow.set_experiment.assert_called_once_with("exp")
    mlflow.set_tag.assert_called_once_with("mlflow.runName", "run")
    mlflow.set_tags.assert_called_once_with({"t": 1})
    assert mlflow.log_params.call_args_list == [
        call({"p": 2}),
        call({"work_dir": cfg.work_dir, "model.depth": 3, "model.parts.0.a": 1}),
    ]
    mlflow.log_metrics.assert_called_once_with({"a": 1.0}, 3)
    mlflow.log_metric.assert_not_called()
    mlflow.log_text.assert_called_once_with(cfg.pretty_text, "config.py")
    assert mlflow.log_artifact.call_args_list == [
        call(f"{cfg.work_dir}/a.json", ""),
        call(f"{cfg.work_dir}/inner/b.json", "inner"),
    ]
    mlflow.end_run.assert_called_once_with()


def test_mlflow_records_chosen_keys(tmp_path: Path, fake: Any, cfg: Config) -> None:
    mlflow = fake("mlflow")
    backend = visualization.MLflowVisBackend(
        str(tmp_path),
        tracking_uri="http://server",
        tracked_config_keys=["model"],  # type: ignore[arg-type]
    )
    backend.add_config(cfg)
    mlflow.set_tracking_uri.assert_called_once_with("http://server")
    mlflow.log_params.assert_called_once_with({"model.depth": 3, "model.parts.0.a": 1})
