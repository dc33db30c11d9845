"""The writer for Aim."""

from pathlib import Path
from typing import Any

import pytest

from fasttrain import visualization
from fasttrain.config import Config


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
