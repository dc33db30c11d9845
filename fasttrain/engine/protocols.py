"""What the trainers ask of models, losses, scorers and evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

Batch = dict[str, Any]


class TrainableModel(Protocol):
    """A model of DefaultTrainer: turns a loader's batch into a dict, and a dict into outputs."""

    def preprocess_batch(self, batched_inputs: Any) -> Batch:
        """The loader's batch as a dict of tensors on the model's device."""
        ...

    def __call__(self, data: Batch) -> Batch:
        """The outputs: what the losses and evaluators read, `data` included."""
        ...


class DecodingModel(TrainableModel, Protocol):
    """A model that also generates sequences, for the reinforcement-learning trainers.

    Called with `use_beam_search` and `output_sents` it returns `IDS`, `G_SENTS_IDS` [B, T] and
    `G_LOGP` [B, T]; it samples where the data hold `DECODE_BY_SAMPLE=True`.
    """


class EnsembleModel(TrainableModel, Protocol):
    """A model made of others, each with weights of its own in `MODEL.ENSEMBLE_WEIGHTS`."""

    @property
    def members(self) -> Sequence[nn.Module]:
        """The models, in the order of their files."""
        ...


class Loss(Protocol):
    """Called with a model's outputs; name -> scalar. Names holding `acc` are only measured."""

    def __call__(self, outputs: Batch) -> dict[str, Tensor]: ...


class Scorer(Protocol):
    """Rates generated sequences."""

    def __call__(self, outputs: Batch) -> dict[str, Any]:
        """`REWARDS`: ndarray or tensor [B]; every further entry is a metric (float)."""
        ...


class Evaluator(Protocol):
    """Rates the results of a whole data set."""

    def eval(self, results: Any, epoch: int) -> dict[str, Any]:
        """Metric -> float, possibly nested. RetrievalTrainer calls `eval(v, t, labels)`."""
        ...
