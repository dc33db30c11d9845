"""Small models, data sets and configs for the engine's trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fasttrain.engine import CfgNode, build_engine, get_cfg
from fasttrain.engine import data_keys as kfg


def toy_cfg(folder: Path, model: str, dataset: str, **changes: Any) -> CfgNode:
    """A config for the CPU with few, quick epochs; changes are `SECTION__KEY=value`."""
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder)
    cfg.SEED = 0
    cfg.MODEL.update({"DEVICE": "cpu", "META_ARCHITECTURE": model})
    cfg.DATASETS.TRAIN = dataset
    cfg.DATALOADER.update({"TRAIN_BATCH_SIZE": 8, "TEST_BATCH_SIZE": 8, "NUM_WORKERS": 0})
    cfg.SOLVER.update({"EPOCH": 4, "BASE_LR": 0.02, "NAME": "Adam", "WRITE_PERIOD": 50})
    cfg.SOLVER.CHECKPOINT_PERIOD = 1000
    cfg.LR_SCHEDULER.NAME = "FixLR"
    cfg.SCHEDULED_SAMPLING.START_EPOCH = -1
    cfg.LOSSES.NAMES = ["CrossEntropy"]
    for name, value in changes.items():
        node = cfg
        *sections, key = name.split("__")
        for section in sections:
            node = node[section]
        node[key] = value
    torch.manual_seed(0)
    return cfg


class Rows(Dataset):
    """Samples [dim] with a label that a linear model can learn; one more dict entry each."""

    def __init__(self, length: int = 32, dim: int = 6, classes: int = 3) -> None:
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(length, dim, generator=generator)
        self.y = (self.x @ torch.randn(dim, classes, generator=generator)).argmax(1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": index, "x": self.x[index], "y": self.y[index]}


def stacked(samples: list[dict[str, Any]], key: str) -> Tensor:
    return torch.stack([torch.as_tensor(sample[key]) for sample in samples])


class Classifier(nn.Module):
    """One class per sample as a sequence of one `G` token."""

    def __init__(self, cfg: Any = None, dim: int = 6, classes: int = 3) -> None:
        super().__init__()
        self.net = nn.Linear(dim, classes)

    def preprocess_batch(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            kfg.IDS: [sample["id"] for sample in samples],
            "x": stacked(samples, "x"),
            kfg.G_TARGET_IDS: stacked(samples, "y"),
        }

    def forward(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        logits = self.net(data["x"])
        return {**data, kfg.G_LOGITS: logits, kfg.OUTPUT: logits.argmax(-1).tolist()}


class Accuracy:
    """Evaluator over {image_id, caption} entries of `Rows`."""

    def __init__(self, cfg: Any = None, annfile: str = "", output_dir: str | None = None) -> None:
        self.labels = Rows().y.tolist()
        self.epochs: list[int] = []

    def eval(self, results: list[dict[str, Any]], epoch: int) -> dict[str, float]:
        self.epochs.append(epoch)
        right = [entry["caption"] == self.labels[entry["image_id"]] for entry in results]
        return {"accuracy": sum(right) / len(right)}


def register(registry: Any, name: str) -> Any:
    """A decorator that registers once, however often the test's module is imported."""

    def add(made: Any) -> Any:
        if name not in registry:
            registry.register(made, name=name)
        return made

    return add


class Samples(Dataset):
    """A data set of ready rows."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def values(trainer: Any, name: str) -> list[float]:
    """What a training put under a name."""
    return [value for value, _ in trainer.storage.history(name).values()]


def train(folder: Path, engine: str, model: str, data: str, **changes: Any) -> Any:
    """A trainer that has trained by `toy_cfg`."""
    trainer = build_engine(toy_cfg(folder, model, data, ENGINE__NAME=engine, **changes))
    trainer.train()
    return trainer
