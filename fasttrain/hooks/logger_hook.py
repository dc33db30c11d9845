"""LoggerHook: log lines for people, tags for the writers, copies of the logs at the end."""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fasttrain.core.checkpoint import place_of
from fasttrain.core.pending import PendingFlush
from fasttrain.core.transfer import AveragingReader
from fasttrain.dist import get_world_size
from fasttrain.hooks.hook import DATA_BATCH, Hook
from fasttrain.hooks.log_files import (
    SUFFIX_TYPE,
    copy_logs,
    is_suffix,
    plain,
    remove_logs,
    write_json,
)
from fasttrain.hooks.log_moment import Moment
from fasttrain.logging import print_log
from fasttrain.registry import HOOKS

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class LoggerHook(Hook):
    """Logs every `interval` iterations and after each validation and test.

    While scalars wait on a device, a log point only begins to fetch them; the line is written
    when they have arrived, with the iteration of the log point, before any later line.

    Args:
        interval: iterations between two lines.
        ignore_last: no line for the last iterations of an epoch when they fill no interval.
        interval_exp_name: iterations between two lines with the experiment's name.
        out_dir: where the logs are copied to at the end, into a folder named like the work
            folder; any URL that fsspec writes will do.
        out_suffix: endings of the files to copy.
        keep_local: keep the originals.
        file_client_args: old name of `backend_args`.
        log_metric_by_epoch: whether the writers get the epoch or the iteration with metrics.
        backend_args: options of fsspec's file system.
        detect_anomaly: what to do when a training loss is infinite or NaN, which shows at a log
            point: "warn", "stop" (raises FloatingPointError) or False.
        average_ranks: average the scalars that are tensors over all processes, by one all-reduce
            per log point; between log points a scalar shows only up to the last one.
    """

    priority = "BELOW_NORMAL"

    def __init__(
        self,
        interval: int = 10,
        ignore_last: bool = True,
        interval_exp_name: int = 1000,
        out_dir: str | Path | None = None,
        out_suffix: SUFFIX_TYPE = (".json", ".log", ".py", "yaml"),
        keep_local: bool = True,
        file_client_args: dict | None = None,
        log_metric_by_epoch: bool = True,
        backend_args: dict | None = None,
        *,
        detect_anomaly: Literal["warn", "stop", False] = "warn",
        average_ranks: bool = False,
    ) -> None:
        _check_count("interval", interval)
        _check_count("interval_exp_name", interval_exp_name)
        for name, flag in (("ignore_last", ignore_last), ("keep_local", keep_local)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be a boolean, got {type(flag)}")
        if out_dir is not None and not isinstance(out_dir, str | Path):
            raise TypeError(f"out_dir must be a str or Path object, got {type(out_dir)}")
        if not is_suffix(out_suffix):
            raise TypeError(
                f"out_suffix should be a string or a sequence of string, but got {type(out_suffix)}"
            )
        if detect_anomaly not in ("warn", "stop", False):
            raise ValueError(
                f"detect_anomaly must be 'warn', 'stop' or False, got {detect_anomaly!r}"
            )
        _check_backend(out_dir, file_client_args, backend_args)
        self.interval = interval
        self.ignore_last = ignore_last
        self.interval_exp_name = interval_exp_name
        self.out_dir: str | Path | None = out_dir
        self.out_suffix = out_suffix
        self.keep_local = keep_local
        self.file_client_args = file_client_args
        self.backend_args = backend_args
        self.log_metric_by_epoch = log_metric_by_epoch
        self.detect_anomaly = detect_anomaly
        self.average_ranks = average_ranks
        self.json_log_path: str | None = None
        if out_dir is not None:
            self.file_backend = self.file_client = place_of(
                out_dir, backend_args or file_client_args
            )
        self._loader: Any = None  # the dataloader that `_length` was asked of, once an epoch
        self._length = 0
        self._under_way: PendingFlush | None = None
        self._guarded: weakref.ref | None = None  # the hub whose lines are written at exit
        self._warned: set[str] = set()
        self._fault: str | None = None  # why the run shall stop

    def before_run(self, runner: Runner) -> None:
        """Settle where the logs go, and record the config with the writers."""
        if self.out_dir is not None:
            name = os.path.basename(str(runner.work_dir).rstrip("/"))
            self.out_dir = self.file_backend.join_path(str(self.out_dir), name)
            runner.logger.info(
                f"Text logs will be saved to {self.out_dir} after the training process."
            )
        self.json_log_path = f"{runner.timestamp}.json"
        if self.average_ranks and get_world_size() > 1:
            runner.message_hub.store.use_reader(AveragingReader())

    # --- lines -------------------------------------------------------------------------------
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        """Log when the interval or the epoch is full."""
        if self._under_way is not None and self._under_way.ready():
            self._finish()
        done = batch_idx + 1
        loader = runner.train_dataloader
        if loader is not self._loader or batch_idx == 0:
            self._loader, self._length = loader, len(loader)
        last = done == self._length
        if last or (runner.iter + 1) % self.interval_exp_name == 0:
            self._finish()
            runner.logger.info(f"Exp name: {runner.experiment_name}")
        if done % self.interval == 0 or (last and (not self.ignore_last or done <= self.interval)):
            self._log_train(runner, batch_idx)
        if last:
            self._finish()

    def _log_train(self, runner: Runner, batch_idx: int) -> None:
        """Write the line, or begin to fetch its numbers when some are on a device."""
        hub = runner.message_hub
        self._finish()
        if hub.pending is not True:
            self._write_train(runner, batch_idx)
            self._stop_if_due()
            return
        self._guard_exit(hub)
        moment: Any = Moment(runner)
        flush = hub.begin_flush(lambda: self._write_train(moment, batch_idx))
        self._under_way = None if flush.done else flush
        self._stop_if_due()

    def _write_train(self, runner: Runner, batch_idx: int) -> None:
        tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
        runner.logger.info(line)
        runner.visualizer.add_scalars(tag, step=runner.iter + 1, file_path=self.json_log_path)
        if self.detect_anomaly:
            self._check_losses(runner)

    def _finish(self) -> None:
        """Write the line that is under way, if there is one (sync point).

        Whoever reads the hub may have written it, in any thread; what it showed counts here.
        """
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.finish()
        self._stop_if_due()

    def _stop_if_due(self) -> None:
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise FloatingPointError(fault)

    def _guard_exit(self, hub: Any) -> None:
        """Have the lines under way written when the process ends, however it does."""
        if self._guarded is None or self._guarded() is not hub:
            self._guarded = weakref.ref(hub)
            atexit.register(_flush_quietly, self._guarded)

    def before_val(self, runner: Runner) -> None:
        """Write what is under way; stop the run if that showed why."""
        self._finish()

    def after_train(self, runner: Runner) -> None:
        """Write what is under way; stop the run if that showed why."""
        self._finish()

    def on_exception(self, runner: Runner) -> None:
        """Write what is under way before the run ends early."""
        self._under_way = None
        runner.message_hub.store.settle()

    def _check_losses(self, runner: Runner) -> None:
        store = runner.message_hub.store
        names = [
            name
            for name in list(store.nonfinite)
            if "loss" in name and name.startswith("train/") and name not in self._warned
        ]
        if not names:
            return
        self._warned.update(names)
        which = ", ".join(
            f"{name.removeprefix('train/')} (last in iteration {store.nonfinite_steps[name] + 1})"
            for name in names
        )
        text = f"non-finite training loss: {which}"
        if self.detect_anomaly == "stop":
            self._fault = (
                f"{text}. Lower the learning rate, clip gradients or look at the data; "
                "detect_anomaly='warn' of the LoggerHook goes on."
            )
        else:
            runner.logger.warning(text)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Log when the interval is full."""
        self._log_eval(runner, batch_idx, "val")

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Log when the interval is full."""
        self._log_eval(runner, batch_idx, "test")

    def _log_eval(self, runner: Runner, batch_idx: int, mode: str) -> None:
        if self.every_n_inner_iters(batch_idx, self.interval):
            _, line = runner.log_processor.get_log_after_iter(runner, batch_idx, mode)
            runner.logger.info(line)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the metrics, and hand them to the writers."""
        tag, line = runner.log_processor.get_log_after_epoch(
            runner, len(runner.val_dataloader), "val"
        )
        runner.logger.info(line)
        step = 0
        if runner._train_loop is not None and not isinstance(runner._train_loop, dict):
            step = runner.epoch if self.log_metric_by_epoch else runner.iter
        runner.visualizer.add_scalars(tag, step=step, file_path=self.json_log_path)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the metrics, and write them as JSON into the log folder."""
        tag, line = runner.log_processor.get_log_after_epoch(
            runner, len(runner.test_dataloader), "test", with_non_scalar=True
        )
        runner.logger.info(line)
        path = os.path.join(runner.log_dir, str(self.json_log_path))
        write_json(self._process_tags(tag), path)

    @staticmethod
    def _process_tags(tags: dict) -> dict:
        """The tags with arrays and tensors as plain numbers and lists."""
        return OrderedDict((name, plain(value)) for name, value in tags.items())

    # --- copies ------------------------------------------------------------------------------
    def after_run(self, runner: Runner) -> None:
        """Close the writers and copy the logs to `out_dir`."""
        self._finish()
        runner.visualizer.close()
        if self.out_dir is None:
            return
        copied = copy_logs(
            Path(runner._log_dir), str(self.out_dir), self.out_suffix, self.file_backend
        )
        for path, target in copied:
            runner.logger.info(f"The file {path} has been uploaded to {target}.")
        if not self.keep_local:
            remove_logs(runner.logger, copied)


def _flush_quietly(hub: weakref.ref) -> None:
    alive = hub()
    if alive is not None:
        try:
            alive.store.settle()
        except Exception as e:  # the device may be the reason that the process ends
            logging.getLogger("fasttrain.hooks").warning("the last log lines are lost: %s", e)


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value)}")
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value}")


def _check_backend(
    out_dir: str | Path | None, file_client_args: dict | None, backend_args: dict | None
) -> None:
    if file_client_args is None:
        return
    if out_dir is None:
        raise ValueError('file_client_args should be "None" when `out_dir` is not specified.')
    print_log(
        '"file_client_args" will be deprecated in future. Please use "backend_args" instead',
        logger="current",
        level=logging.WARNING,
    )
    if backend_args is not None:
        raise ValueError('"file_client_args" and "backend_args" cannot be set at the same time.')
