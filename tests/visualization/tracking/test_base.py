"""What all writers for tracking services do."""

import sys
from pathlib import Path
from typing import Any

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
