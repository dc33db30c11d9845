"""BaseMetric: collects results batch by batch, over all processes, and computes from them."""

from __future__ import annotations

import logging
import pickle
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fasttrain.core.checkpoint import replace_durably
from fasttrain.dist import broadcast_object_list, collect_results, is_main_process
from fasttrain.logging import print_log
from fasttrain.registry import METRICS


class BaseMetric(metaclass=ABCMeta):
    """Base of metrics: subclasses fill `self.results` in `process` and write `compute_metrics`.

    Args:
        collect_device: 'cpu' or 'gpu', over which the processes' results are joined.
        prefix: stands before the names of metrics, `default_prefix` when it is not given.
        collect_dir: a folder that all processes see, for 'cpu'.
    """

    default_prefix: str | None = None

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        if collect_dir is not None and collect_device != "cpu":
            raise ValueError("`collec_dir` could only be configured when `collect_device='cpu'`")
        self._dataset_meta: dict | None = None
        self.collect_device = collect_device
        self.results: list[Any] = []
        self.prefix = prefix or self.default_prefix
        self.collect_dir = collect_dir
        if self.prefix is None:
            print_log(
                f"The prefix is not set in metric class {type(self).__name__}.",
                logger="current",
                level=logging.WARNING,
            )

    @property
    def dataset_meta(self) -> dict | None:
        """The dataset's metainfo."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta

    @abstractmethod
    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append to `self.results` what one batch contributes.

        Args:
            data_batch: as the dataloader gave it.
            data_samples: the model's outputs, with what the samples hold.
        """

    @abstractmethod
    def compute_metrics(self, results: list) -> dict:
        """Name -> value, from the results of all batches and processes."""

    def evaluate(self, size: int) -> dict:
        """Join the processes' results, compute, and start anew; the same dict on every process.

        Args:
            size: length of the dataset; results beyond it are what a sampler padded.
        """
        if not self.results:
            print_log(
                f"{type(self).__name__} got empty `self.results`. Please ensure that the "
                "processed results are properly added into `self.results` in `process` method.",
                logger="current",
                level=logging.WARNING,
            )
        results = collect_results(self.results, size, self.collect_device, tmpdir=self.collect_dir)
        metrics: list[Any] = [None]
        if is_main_process():
            computed = self.compute_metrics(_to_cpu(results))
            if self.prefix:
                computed = {f"{self.prefix}/{name}": value for name, value in computed.items()}
            metrics = [computed]
        broadcast_object_list(metrics)
        self.results.clear()
        return metrics[0]


@METRICS.register_module()
class DumpResults(BaseMetric):
    """Write all predictions to a pickle file; no metric.

    Args:
        out_file_path: ends in .pkl or .pickle.
        collect_device: as in `BaseMetric`.
        collect_dir: as in `BaseMetric`.
    """

    def __init__(
        self, out_file_path: str, collect_device: str = "cpu", collect_dir: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, collect_dir=collect_dir)
        if not out_file_path.endswith((".pkl", ".pickle")):
            raise ValueError("The output file must be a pkl file.")
        self.out_file_path = out_file_path

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Keep the predictions, on the CPU."""
        self.results.extend(_to_cpu(predictions))

    def compute_metrics(self, results: list) -> dict:
        """Write the file, whole or not at all."""
        with (
            replace_durably(self.out_file_path, durable=False) as descriptor,
            open(descriptor, "wb", closefd=False) as file,
        ):
            pickle.dump(results, file, protocol=pickle.HIGHEST_PROTOCOL)
        print_log(f"Results has been saved to {self.out_file_path}.", logger="current")
        return {}


def _to_cpu(data: Any) -> Any:
    """Nested `data` with every tensor and data element on the CPU."""
    if isinstance(data, Tensor) or hasattr(data, "to_dict"):
        return data.to("cpu")
    if isinstance(data, list):
        return [_to_cpu(item) for item in data]
    if isinstance(data, tuple):
        return tuple(_to_cpu(item) for item in data)
    if isinstance(data, dict):
        return {key: _to_cpu(item) for key, item in data.items()}
    return data
