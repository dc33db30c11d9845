"""The writer for DVCLive."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fasttrain import visualization
from fasttrain.config import Config

IMAGE = np.zeros((2, 2, 3), np.uint8)


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
