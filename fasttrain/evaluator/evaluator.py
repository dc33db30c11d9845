"""Evaluator: runs several metrics over the same predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from fasttrain.dataset import pseudo_collate
from fasttrain.evaluator.metric import BaseMetric
from fasttrain.registry import EVALUATOR, METRICS


@EVALUATOR.register_module()
class Evaluator:
    """Several metrics as one.

    Args:
        metrics: one or several metrics, or configs of them.
    """

    def __init__(self, metrics: dict | BaseMetric | Sequence) -> None:
        self._dataset_meta: dict | None = None
        if not isinstance(metrics, Sequence):
            metrics = [metrics]
        self.metrics: list[BaseMetric] = [
            METRICS.build(metric) if isinstance(metric, dict) else metric for metric in metrics
        ]

    @property
    def dataset_meta(self) -> dict | None:
        """The dataset's metainfo, handed to every metric when set."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta
        for metric in self.metrics:
            metric.dataset_meta = dataset_meta

    def process(self, data_samples: Sequence[Any], data_batch: Any | None = None) -> None:
        """Hand one batch to every metric, data elements as dicts."""
        samples = [
            sample.to_dict() if hasattr(sample, "to_dict") else sample for sample in data_samples
        ]
        for metric in self.metrics:
            metric.process(data_batch, samples)

    def evaluate(self, size: int) -> dict:
        """The results of all metrics; `size` is the dataset's length.

        Raises:
            ValueError: two metrics give a value of the same name.
        """
        results: dict[str, Any] = {}
        for metric in self.metrics:
            for name, value in metric.evaluate(size).items():
                if name in results:
                    raise ValueError(
                        f"There are multiple evaluation results with the same metric name {name}. "
                        "Please make sure all metrics have different prefixes."
                    )
                results[name] = value
        return results

    def offline_evaluate(
        self, data_samples: Sequence, data: Sequence | None = None, chunk_size: int = 1
    ) -> dict:
        """Evaluate saved predictions.

        Args:
            data_samples: predictions; any iterable.
            data: the samples they belong to, equally many.
            chunk_size: how many are handed to the metrics at a time, as one batch.
        """
        if data is not None:
            assert len(data_samples) == len(data), (
                "data_samples and data should have the same length, but got data_samples length: "
                f"{len(data_samples)} data length: {len(data)}"
            )
        size = 0
        batches = None if data is None else _chunks(data, chunk_size)
        for chunk in _chunks(data_samples, chunk_size):
            size += len(chunk)
            self.process(chunk, None if batches is None else pseudo_collate(next(batches)))
        return self.evaluate(size)


def _chunks(items: Any, size: int) -> Iterator[list]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
