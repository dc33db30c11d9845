"""Handwritten digits: the data set, a small CNN and the metric that `digits_cnn.py` puts together.

The data are the 1,797 scans of 8 x 8 pixels that scikit-learn brings along (the test part of the
UCI "Optical Recognition of Handwritten Digits" set), so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from fasttrain.evaluator import BaseMetric
from fasttrain.model import BaseModel
from fasttrain.registry import DATASETS, METRICS, MODELS

NUM_TEST = 360
NUM_VAL = 180
LARGEST_VALUE = 16.0
# Rows and columns by which `shifted=True` moves each picture.
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


@DATASETS.register_module()
class Digits(Dataset):
    """One part of the digits; the three parts are disjoint and the same in every run.

    Args:
        split: 'train' (1,257 pictures), 'val' (180, to choose a checkpoint) or 'test' (360, for
            the figure that is reported; nothing is chosen by it).
        shifted: add four copies of each picture, shifted by one pixel.
    """

    METAINFO = {"classes": tuple(str(digit) for digit in range(10))}

    def __init__(self, split: str, shifted: bool = False) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f"split must be 'train', 'val' or 'test', got {split!r}")
        self.metainfo = dict(self.METAINFO)
        images, labels = load_digits(return_X_y=True)
        chosen = _indices(labels)[split]
        images = (images[chosen] / LARGEST_VALUE).reshape(-1, 8, 8).astype(np.float32)
        if shifted:
            images = np.concatenate([_shift(images, *shift) for shift in SHIFTS])
            chosen = np.tile(chosen, len(SHIFTS))
        self.images = torch.from_numpy(images).unsqueeze(1)
        self.labels = torch.from_numpy(labels[chosen]).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": self.images[index], "labels": self.labels[index]}


def _indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the three parts, each with the same share of every digit."""
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=NUM_TEST, stratify=labels, random_state=0
    )
    train, val = train_test_split(rest, test_size=NUM_VAL, stratify=labels[rest], random_state=0)
    return {"train": train, "val": val, "test": test}


def _shift(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 - rows : 9 - rows, 1 - columns : 9 - columns]


@MODELS.register_module()
class DigitsCNN(BaseModel):
    """Three 3 x 3 convolutions, two poolings and a linear classifier.

    Args:
        width: channels of the first convolution; the others have twice as many.
    """

    def __init__(self, width: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = nn.Sequential(
            _conv(1, width),
            _conv(width, 2 * width),
            nn.MaxPool2d(2),
            _conv(2 * width, 2 * width),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(2 * width * 4, 10)

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = "tensor") -> Any:
        """Logits (`tensor`), a dict of losses (`loss`), or predictions with labels (`predict`)."""
        logits = self.classifier(self.features(inputs))
        if mode == "loss":
            hits = (logits.detach().argmax(1) == labels).float()
            return {"loss": functional.cross_entropy(logits, labels), "accuracy": hits.mean()}
        if mode == "predict":
            pairs = zip(logits.argmax(1), labels, strict=True)
            return [{"prediction": prediction, "label": label} for prediction, label in pairs]
        return logits


def _conv(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Share of correct predictions."""

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Tensor]]) -> None:
        """Remember which pictures of a batch were recognised."""
        hits = torch.stack([sample["prediction"] == sample["label"] for sample in data_samples])
        self.results += hits.tolist()  # sync point: once per evaluated batch

    def compute_metrics(self, results: list[bool]) -> dict[str, float]:
        """Average over the data set."""
        return {"accuracy": sum(results) / len(results)}
