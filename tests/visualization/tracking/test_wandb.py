"""The writer for Weights & Biases."""

from pathlib import Path
from typing import Any

from fasttrain import visualization
from fasttrain.config import Config


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
