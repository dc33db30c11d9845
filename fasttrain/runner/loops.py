"""The loops: training by epoch and by iteration, validation and testing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from fasttrain.core.batches import Batches, set_sampler_epoch
from fasttrain.evaluator import Evaluator
from fasttrain.logging import HistoryBuffer
from fasttrain.registry import LOOPS

from .amp import autocast
from .base_loop import BaseLoop
from .hook_calls import call_after_iter, call_before_iter
from .train_loop import TrainLoop

if TYPE_CHECKING:
    from fasttrain.runner.runner import Runner


def whole_number(value: float, name: str) -> int:
    """`value` as an int, refused when it is not a whole number."""
    assert not isinstance(value, str) and int(value) == value, (
        f"`{name}` should be a integer number, but get {value}."
    )
    return int(value)


@LOOPS.register_module()
class EpochBasedTrainLoop(TrainLoop):
    """Trains for a number of passes over the data.

    Args:
        runner: the runner whose model is trained.
        dataloader: the training data, or the dict to build its dataloader from.
        max_epochs: number of epochs.
        val_begin: the first epoch to validate after.
        val_interval: epochs between validations.
        dynamic_intervals: `[(epoch, interval), ...]`, intervals that hold from an epoch on.
        prefetch: on CUDA, copy the next batch to the device meanwhile; see `TrainLoop`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        *,
        prefetch: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, val_begin, val_interval, dynamic_intervals, prefetch)
        self._max_epochs = whole_number(max_epochs, "max_epochs")
        self._max_iters = self._max_epochs * len(self.dataloader)

    def run(self) -> nn.Module:
        """Train to the end, and return the model."""
        self._start()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            self._validate_if_due(self._max_epochs)
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for one epoch, or for the rest of one that a resumed run had begun."""
        runner = self.runner
        runner.call_hook("before_train_epoch")
        runner.model.train()
        interrupt = runner._interrupt
        batches = self._on_device(self._batches.begin(self.dataloader, self._iter))
        for idx, data_batch in enumerate(batches, self._batches.skipped):
            self.run_iter(idx, data_batch)
            if interrupt.requested is True:
                self._stop_if_interrupted()
        runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train on one batch."""
        runner = self._runner
        call_before_iter(runner, idx, data_batch)
        outputs = runner.model.train_step(  # type: ignore[operator]
            data_batch, optim_wrapper=runner.optim_wrapper
        )
        call_after_iter(runner, idx, data_batch, outputs)
        self._iter += 1

    def _count(self) -> int:
        return self._epoch

    def _position(self, epoch: int, iter: int) -> dict[str, Any]:
        if epoch > self._epoch:  # saved as "this epoch is done"
            return {"passes": 0, "consumed": 0}
        return super()._position(epoch, iter)

    def _guessed_position(self) -> dict[str, Any]:
        length = len(self.dataloader)
        consumed = self._iter - self._epoch * length
        return {"consumed": consumed if 0 < consumed < length else 0}


class _InfiniteDataloaderIterator:
    """Batch after batch without an end: each pass over the dataloader follows the one before."""

    def __init__(self, dataloader: DataLoader, batches: Batches | None = None) -> None:
        self._dataloader = dataloader
        self._batches = Batches() if batches is None else batches
        self._iterator: Iterator[Any] | None = None

    @property
    def _epoch(self) -> int:
        return self._batches.passes

    def close(self) -> None:
        """Let the running pass go; the next batch comes from a new one."""
        self._batches.close()
        self._iterator = None

    def __iter__(self) -> _InfiniteDataloaderIterator:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._begin()
        try:
            return next(self._iterator)
        except StopIteration:
            self._batches.next_pass(self._dataloader)
            self._iterator = self._begin()
        for data_batch in self._iterator:
            return data_batch
        raise ValueError("the dataloader gave no batch in a whole pass; expected at least one")

    def _begin(self) -> Iterator[Any]:
        if self._batches.passes:
            set_sampler_epoch(self._dataloader, self._batches.passes)
        return self._batches.begin(self._dataloader, self._batches.next_iter, roll_over=True)


@LOOPS.register_module()
class IterBasedTrainLoop(TrainLoop):
    """Trains for a number of iterations, over as many passes as that takes.

    Args:
        runner: the runner whose model is trained.
        dataloader: the training data, or the dict to build its dataloader from.
        max_iters: number of iterations.
        val_begin: the first iteration to validate after.
        val_interval: iterations between validations.
        dynamic_intervals: `[(iteration, interval), ...]`, intervals that hold from there on.
        prefetch: on CUDA, copy the next batch to the device meanwhile; see `TrainLoop`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        *,
        prefetch: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, val_begin, val_interval, dynamic_intervals, prefetch)
        self._max_iters = whole_number(max_iters, "max_iters")
        self._max_epochs = 1  # the whole training is one long epoch
        self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader, self._batches)

    def run(self) -> nn.Module:
        """Train to the end, and return the model."""
        runner = self.runner
        self._start()
        runner.call_hook("before_train_epoch")
        self._batches.next_iter = self._iter
        if self.dataloader_iterator._dataloader is not self.dataloader:  # replaced since
            self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader, self._batches)
        interrupt = runner._interrupt
        dynamic = len(self.dynamic_milestones) > 1
        batches = self._on_device(self.dataloader_iterator)
        while self._iter < self._max_iters and not self.stop_training:
            if not runner.model.training:
                runner.model.train()
            self.run_iter(next(batches))
            if dynamic:
                self._decide_current_val_interval()
            self._validate_if_due(self._max_iters)
            if interrupt.requested is True:
                self._stop_if_interrupted()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def run_iter(self, data_batch: Any) -> None:
        """Train on one batch."""
        runner = self._runner
        call_before_iter(runner, self._iter, data_batch)
        outputs = runner.model.train_step(  # type: ignore[operator]
            data_batch, optim_wrapper=runner.optim_wrapper
        )
        call_after_iter(runner, self._iter, data_batch, outputs)
        self._iter += 1

    def close(self) -> None:
        self.dataloader_iterator.close()

    def _count(self) -> int:
        return self._iter

    def _guessed_position(self) -> dict[str, Any]:
        return {"consumed": self._iter}


class _EvaluationLoop(BaseLoop):
    """What validation and testing share.

    Args:
        runner: the runner whose model is evaluated.
        dataloader: the data, or the dict to build its dataloader from.
        evaluator: computes the metrics, or what to build it from.
        fp16: evaluate under autocast.
    """

    mode: str

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader)
        if isinstance(evaluator, dict | list):
            self.evaluator = runner.build_evaluator(evaluator)
        else:
            assert isinstance(evaluator, Evaluator), (
                f"evaluator must be one of dict, list or Evaluator instance, but got "
                f"{type(evaluator)}."
            )
            self.evaluator = evaluator
        self.fp16 = fp16
        self._losses: dict[str, HistoryBuffer] = {}
        metainfo = self._dataset_meta("evaluator, metric and visualizer")
        if metainfo is not None:
            self.evaluator.dataset_meta = metainfo

    def run(self) -> dict:
        """Evaluate the whole dataset, and return the metrics."""
        runner = self.runner
        self._require_data(self.mode)
        runner.call_hook(f"before_{self.mode}")
        runner.call_hook(f"before_{self.mode}_epoch")
        runner.model.eval()
        self._losses.clear()
        for idx, data_batch in enumerate(self.dataloader):
            self.run_iter(idx, data_batch)
            if runner._interrupt.requested is True:  # a mock's attribute is not
                raise KeyboardInterrupt
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))  # type: ignore[arg-type]
        if self._losses:
            metrics.update(_parse_losses(self._losses, self.mode))
        runner.call_hook(f"after_{self.mode}_epoch", metrics=metrics)
        runner.call_hook(f"after_{self.mode}")
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Evaluate one batch."""
        mode = self.mode
        self.runner.call_hook(f"before_{mode}_iter", batch_idx=idx, data_batch=data_batch)
        with autocast() if self.fp16 else nullcontext():
            outputs = getattr(self.runner.model, f"{mode}_step")(data_batch)
        outputs, self._losses = _update_losses(outputs, self._losses)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            f"after_{mode}_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )


@LOOPS.register_module()
class ValLoop(_EvaluationLoop):
    """Validates once over the data; see `_EvaluationLoop` for the arguments."""

    mode = "val"

    @property
    def val_loss(self) -> dict[str, HistoryBuffer]:
        """The losses that the model returned with its predictions."""
        return self._losses


@LOOPS.register_module()
class TestLoop(_EvaluationLoop):
    """Tests once over the data; see `_EvaluationLoop` for the arguments."""

    __test__ = False  # not a test case for pytest
    mode = "test"

    @property
    def test_loss(self) -> dict[str, HistoryBuffer]:
        """The losses that the model returned with its predictions."""
        return self._losses


def _update_losses(outputs: Any, losses: dict[str, HistoryBuffer]) -> tuple[Any, dict]:
    """Take the losses off the end of a model's outputs and add them to `losses`.

    A model gives losses with its predictions as a last sample that holds nothing but `loss`, a
    dict of tensors or lists of tensors.
    """
    last = outputs[-1]
    keys = getattr(last, "keys", None)
    # Samples with fields (data elements) only: a plain dict with a loss is a prediction.
    if isinstance(last, dict) or keys is None or list(keys()) != ["loss"]:
        return outputs, losses
    for name, value in last.loss.items():
        buffer = losses.setdefault(name, HistoryBuffer())
        for loss in value if isinstance(value, list | tuple) else [value]:
            buffer.update(loss.item())  # sync point; the predictions are read on the host anyway
    return outputs[:-1], losses


def _parse_losses(losses: dict[str, HistoryBuffer], stage: str) -> dict[str, float]:
    """The mean of each loss, and under `<stage>_loss` the sum of those named a loss."""
    means = {name: float(buffer.mean()) for name, buffer in losses.items()}
    return {**means, f"{stage}_loss": sum(mean for name, mean in means.items() if "loss" in name)}
