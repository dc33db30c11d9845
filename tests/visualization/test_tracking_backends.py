import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import torch

from fasttrain import visualization
from fasttrain.config import Config
from fasttrain.registry import VISBACKENDS

IMAGE = np.zeros((2, 2, 3), np.uint8)
PACKAGES = {
    "WandbVisBackend": "wandb",
    "MLflowVisBackend": "mlflow",
    "ClearMLVisBackend": "clearml",
    "NeptuneVisBackend": "neptune",
    "DVCLiveVisBackend": "dvclive",
    "AimVisBackend": "aim",
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a stand-in for a package where it is imported from."""

    def put(name: str) -> MagicMock:
        module = MagicMock(name=name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A config whose work folder holds one file of each kind."""
    for name in ("a.json", "b.py", "c.pth", "d.txt"):
        (tmp_path / "work").mkdir(exist_ok=True)
        (tmp_path / "work" / name).write_text(name)
    return Config({"work_dir": str(tmp_path / "work"), "model": {"depth": 3, "parts": [{"a": 1}]}})


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_a_missing_package_is_named(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    backend = VISBACKENDS.build({"type": name, "save_dir": str(tmp_path)})
    assert type(backend) is getattr(visualization, name)
    with pytest.raises(ImportError, match=rf'Please run "pip install {package}" to install'):
        backend.add_scalar("a", 1)
    backend.close()


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_all_methods(name: str, package: str, tmp_path: Path, fake: Any, cfg: Config) -> None:
    fake(package)
    fake(f"{package}.types")
    backend = VISBACKENDS.build({"type": name, "save_dir": str(tmp_path)})
    assert backend.experiment is backend.experiment is not None
    backend.add_config(cfg)
    backend.add_graph(torch.nn.Linear(1, 1), [])
    backend.add_image("image", IMAGE, step=1)
    backend.add_scalar("a", torch.tensor([1.0]), step=2)
    backend.add_scalars({"a": np.float32(1), "b": 2}, step=3, file_path="ignored.json")
    backend.close()


def test_wandb(tmp_path: Path, fake: Any, cfg: Config) -> None:
    wandb, given = fake("wandb"), {"project": "p"}
    backend = visualization.WandbVisBackend(
        str(tmp_path), given, {"loss": "min"}, commit=False, watch_kwargs={"log": "all"}
    )
    backend.add_config(cfg)
    backend.add_graph("model", [])  # type: ignore[arg-type]
    backend.add_scalars({"a": 1, "b": 2}, step=3)
    backend.close()
    assert given == {"project": "p"}
    wandb.init.assert_called_once_with(project="p", dir=str(tmp_path))
    wandb.define_metric.assert_called_once_with(name="loss", summary="min")
    wandb.config.update.assert_called_once_with(cfg.to_dict(), allow_val_change=True)
    wandb.watch.assert_called_once_with("model", log="all")
    wandb.log.assert_called_once_with({"a": 1, "b": 2}, commit=False)
    wandb.finish.assert_called_once_with()


def test_mlflow(tmp_path: Path, fake: Any, cfg: Config) -> None:
    mlflow = fake("mlflow")
    mlflow.get_experiment_by_name.return_value = None
    backend = visualization.MLflowVisBackend(
        str(tmp_path), "exp", "run", {"t": 1}, {"p": 2}, artifact_suffix=".json"
    )
    backend.add_config(cfg)
    backend.add_scalars({"a": torch.tensor(1.0), "text": "x"}, step=3)
    backend.add_scalar("text", "x")  # type: ignore[arg-type]
    backend.close()
    mlflow.set_tracking_uri.assert_called_once_with(f"file:{tmp_path}")
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
    mlflow.log_artifact.assert_called_once_with(f"{cfg.work_dir}/a.json")
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


def test_clearml(fake: Any, cfg: Config) -> None:
    clearml = fake("clearml")
    backend = visualization.ClearMLVisBackend(init_kwargs={"project_name": "p"})
    backend.add_config(cfg)
    backend.add_scalars({"a": 1.0, "text": "x"}, step=3)
    backend.close()
    clearml.Task.init.assert_called_once_with(project_name="p")
    task = clearml.Task.init.return_value
    task.connect_configuration.assert_called_once_with(cfg.to_dict())
    task.get_logger.return_value.report_scalar.assert_called_once_with(
        title="a", series="a", value=1.0, iteration=3
    )
    uploaded = [arguments.args for arguments in task.upload_artifact.call_args_list]
    assert uploaded == [(name, f"{cfg.work_dir}/{name}") for name in ("b.py", "c.pth")]
    task.close.assert_called_once_with()


@pytest.mark.parametrize(
    ("given", "used"), [(None, {"mode": "offline"}), ({"project": "p"}, {"project": "p"})]
)
def test_neptune(fake: Any, given: dict | None, used: dict) -> None:
    neptune = fake("neptune")
    backend = visualization.NeptuneVisBackend(init_kwargs=given)
    backend.add_scalar("a", torch.tensor(1.5), step=3)
    backend.close()
    neptune.init_run.assert_called_once_with(**used)
    neptune.init_run.return_value["a"].append.assert_called_once_with(1.5, step=3)


def test_dvclive(tmp_path: Path, fake: Any, cfg: Config) -> None:
    dvclive = fake("dvclive")
    backend = visualization.DVCLiveVisBackend(str(tmp_path), init_kwargs={"report": None})
    backend.add_config(Config({"a": (1, torch.tensor([2])), "b": {"c": SimpleNamespace}}))
    backend.cfg = cfg
    backend.add_image("image", IMAGE, step=4)
    backend.add_scalar("a", 1.0, step=5)
    backend.close()
    dvclive.Live.assert_called_once_with(
        dir=str(tmp_path), save_dvc_exp=False, cache_images=True, report=None
    )
    live = dvclive.Live.return_value
    live.log_params.assert_called_once_with({"a": [1, [2]], "b": {"c": str(SimpleNamespace)}})
    live.log_image.assert_called_once_with("image.png", IMAGE)
    live.log_metric.assert_called_once_with("a", 1.0)
    assert live.step == 5
    assert [c.args[0][-6:] for c in live.log_artifact.call_args_list] == ["a.json", "k/b.py"]


def test_aim(tmp_path: Path, fake: Any, cfg: Config) -> None:
    aim = fake("aim")
    backend = visualization.AimVisBackend(str(tmp_path))
    backend.add_config(cfg)
    backend.add_scalars({"a": 1.0}, step=3)
    aim.Run.assert_called_once_with(repo=str(tmp_path))
    run = aim.Run.return_value
    run.__setitem__.assert_called_once_with("hparams", cfg.to_dict())
    run.track.assert_called_once_with(name="a", value=1.0, step=3)
    with pytest.raises(AssertionError, match=r"Please set it directly through the step"):
        backend.add_scalars({"step": 1})
