"""A toy training for the runner's tests: two features, a line to fit, and a config of it all."""

import logging
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from fasttrain.evaluator import BaseMetric
from fasttrain.model import BaseModel
from fasttrain.registry import DATASETS, METRICS, MODELS
from fasttrain.runner import Runner


@DATASETS.register_module(force=True)
class LineData(Dataset):
    """Points near a line; with `noise` every access draws from all random generators."""

    METAINFO = {"classes": ("line",)}

    def __init__(self, length: int = 12, noise: bool = False) -> None:
        self.metainfo = dict(self.METAINFO)
        self.noise = noise
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(length, 2, generator=generator)
        self.y = self.x @ torch.tensor([1.0, -2.0]) + 0.5
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.loaded.append(int(index))
        x = self.x[index]
        if self.noise:
            x = x + 0.1 * torch.randn(2) + 0.1 * random.random() + 0.1 * np.random.rand()
        return {"inputs": x, "data_samples": self.y[index]}


@MODELS.register_module(force=True)
class LineModel(BaseModel):
    """A linear layer behind dropout, whose noise shows whether random states are kept."""

    def __init__(self, dropout: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(2, 1)
        self.modes: list[bool] = []

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        self.modes.append(self.training)
        out = self.linear(self.drop(inputs)).squeeze(-1)
        if mode == "loss":
            return {"loss": (out - data_samples).square().mean()}
        return list(out) if mode == "predict" else out


@METRICS.register_module(force=True)
class CountMetric(BaseMetric):
    """Counts the samples and draws random numbers, as some metrics do."""

    default_prefix = "toy"

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.extend(float(sample) for sample in data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        torch.rand(3)
        return {"count": len(results), "score": float(np.mean(results))}


def loader_cfg(shuffle: bool, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": {"type": "LineData"},
        "sampler": {"type": "DefaultSampler", "shuffle": shuffle},
        "collate_fn": {"type": "default_collate"},
        "batch_size": 3,
        "num_workers": 0,
        **changes,
    }


MakeConfig = Callable[..., dict[str, Any]]


@pytest.fixture
def make_cfg(tmp_path: Any) -> MakeConfig:
    """Builds the config of the toy training; keyword arguments replace its entries."""

    def make(**changes: Any) -> dict[str, Any]:
        cfg: dict[str, Any] = {
            "model": {"type": "LineModel"},
            "work_dir": str(tmp_path / "work"),
            "train_dataloader": loader_cfg(True),
            "val_dataloader": loader_cfg(False),
            "test_dataloader": loader_cfg(False),
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
            "param_scheduler": {"type": "MultiStepLR", "milestones": [1]},
            "val_evaluator": {"type": "CountMetric"},
            "test_evaluator": {"type": "CountMetric"},
            "train_cfg": {"by_epoch": True, "max_epochs": 3},
            "val_cfg": {},
            "test_cfg": {},
            "randomness": {"seed": 7},
            "log_level": "ERROR",
        }
        cfg.update(changes)
        return cfg

    return make


@pytest.fixture
def make_runner(make_cfg: MakeConfig) -> Callable[..., Runner]:
    """Builds a runner of the toy training."""
    return lambda **changes: Runner.from_cfg(make_cfg(**changes))


@pytest.fixture(autouse=True)
def keep_process_settings() -> Any:
    """Random states and log handlers do not leak from one test into the next."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    logging.captureWarnings(False)
