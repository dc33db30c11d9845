"""Turns the scalars of the message hub into log lines and into tags for the writers."""

from __future__ import annotations

import datetime
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.logging.buffer_view import snapshot
from fasttrain.registry import LOG_PROCESSORS

if TYPE_CHECKING:
    from fasttrain.runner import Runner

_TIMES = ("time", "data_time")


@LOG_PROCESSORS.register_module()
class LogProcessor:
    """Smooths and formats scalars.

    Args:
        window_size: over how many values a smoothed scalar is averaged.
        by_epoch: whether lines count epochs or iterations.
        custom_cfg: further statistics, each a dict of `data_src` (the scalar without its mode),
            `method_name` (a statistic of `HistoryBuffer`), `log_name` (where it is shown; the
            scalar's own name replaces its value), `window_size` ("epoch", "global" or a number)
            and further arguments of the method.
        num_digits: digits after the point.
        log_with_hierarchy: keep "train/", "val/", "test/" in the tags.
        mean_pattern: scalars whose name this finds are averaged; others show their newest value.

    Raises:
        AssertionError: two entries of `custom_cfg` would be shown under one name, or a window is
            "epoch" in a run by iterations.
    """

    def __init__(
        self,
        window_size: int = 10,
        by_epoch: bool = True,
        custom_cfg: list[dict[str, Any]] | None = None,
        num_digits: int = 4,
        log_with_hierarchy: bool = False,
        mean_pattern: str = r".*(loss|time|data_time|grad_norm).*",
    ) -> None:
        self.window_size = window_size
        self.by_epoch = by_epoch
        self.custom_cfg = custom_cfg if custom_cfg else []
        self.num_digits = num_digits
        self.log_with_hierarchy = log_with_hierarchy
        self.mean_pattern = re.compile(mean_pattern)
        self._has_cuda: bool | None = None  # asking is slow; it does not change
        self._smoothed: dict[str, bool] = {}  # name -> whether the pattern finds it
        self._check_custom_cfg()

    # --- the two entrances -------------------------------------------------------------------
    def get_log_after_iter(
        self, runner: Runner, batch_idx: int, mode: str
    ) -> tuple[dict[str, Any], str]:
        """The tags and the line of an iteration.

        Args:
            batch_idx: the index of the batch in its epoch.
            mode: "train", "val" or "test".
        """
        assert mode in ("train", "val", "test"), f"mode must be train, val or test, got {mode!r}"
        windows = self._parse_windows_size(runner, batch_idx, self.custom_cfg)
        tag = self._collect_scalars(windows, runner, mode, self.log_with_hierarchy)
        shown = (
            self._collect_scalars(windows, runner, mode) if self.log_with_hierarchy else dict(tag)
        )
        if self.by_epoch and mode in ("train", "val"):
            tag["epoch"] = self._get_epoch(runner, mode)
        tag["iter"] = runner.iter + 1 if _has_trained(runner) else 0
        if self._has_cuda is None:
            self._has_cuda = torch.cuda.is_available()
        if self._has_cuda:
            tag["memory"] = self._get_max_memory(runner)
        return tag, self._place(runner, batch_idx, mode) + self._numbers(runner, tag, shown, mode)

    def get_log_after_epoch(
        self, runner: Runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict[str, Any], str]:
        """The tags and the line after a validation or test.

        Args:
            batch_idx: the number of batches.
            mode: "val" or "test".
            with_non_scalar: whether the tags also hold results that are no scalars.
        """
        assert mode in ("val", "test"), (
            f"`get_log_after_epoch` only accept val or test mode, but got {mode}"
        )
        size = self._get_dataloader_size(runner, mode)
        place = f"[{size}/{size}]  "
        if self.by_epoch and mode == "val":
            place = f"[{self._get_epoch(runner, mode)}]{place}"
        configured = {cfg["data_src"] for cfg in self.custom_cfg}
        timings: list[dict[str, Any]] = [
            {"data_src": name, "window_size": "epoch", "method_name": "mean"}
            for name in _TIMES
            if name not in configured
        ]
        windows = self._parse_windows_size(runner, batch_idx, self.custom_cfg + timings)
        scalars = self._collect_scalars(windows, runner, mode, self.log_with_hierarchy)
        others = self._collect_non_scalars(runner, mode)
        prefix = f"{mode}/" if self.log_with_hierarchy else ""
        names = {prefix + name for name in _TIMES}
        times = {name: scalars.pop(name) for name in list(scalars) if name in names}
        parts = [
            self._pair(name, value)
            for group in (scalars, others, times)
            for name, value in group.items()
        ]
        tag = OrderedDict([*scalars.items(), *(others.items() if with_non_scalar else ())])
        tag.update(times)
        unit = "Epoch" if self.by_epoch else "Iter"
        return tag, f"{unit}({mode}) {place}  {'  '.join(parts)}"

    # --- the parts of a line -----------------------------------------------------------------
    def _place(self, runner: Runner, batch_idx: int, mode: str) -> str:
        """`Epoch(train)  [2][ 10/938]  ` or `Iter(train) [  10/9380]  `."""
        if not self.by_epoch and mode == "train":
            iteration, most = self._get_iter(runner, batch_idx), runner.max_iters
            return f"Iter(train) [{iteration:{len(str(most))}}/{most}]  "
        size = self._get_dataloader_size(runner, mode)
        place = f"[{batch_idx + 1:{len(str(size))}}/{size}]  "
        if not self.by_epoch:
            return f"Iter({mode}) {place}"
        if mode == "test":
            return f"Epoch(test) {place}"
        width = len(str(runner.max_epochs)) + 3 if _has_trained(runner) else 0
        return f"Epoch({mode}){f'[{self._get_epoch(runner, mode)}]':>{width}}{place}"

    def _numbers(
        self, runner: Runner, tag: Mapping[str, Any], shown: dict[str, Any], mode: str
    ) -> str:
        """Learning rates, time left, times, memory and, in training, everything else."""
        digits = self.num_digits
        info = runner.message_hub.runtime_info
        timed = "eta" in info and "time" in shown and "data_time" in shown
        rates, others = [], []
        for name, value in shown.items():
            if name.endswith("lr"):
                rates.append(f"{name}: {float(value):.{digits}e}")
            elif mode == "train" and not (timed and name in _TIMES):
                others.append(self._pair(name, value))
        line = f"{' '.join(rates)}  "
        if timed:
            line += f"eta: {_duration(int(info['eta']))}  "
            for name in _TIMES:
                line += f"{name}: {float(shown[name]):.{digits}f}  "
        if "memory" in tag:
            line += f"memory: {tag['memory']}  "
        return line + "  ".join(others)

    def _pair(self, name: str, value: Any) -> str:
        if isinstance(value, float):
            # float() first: numpy's own formatting takes several times as long.
            return f"{name}: {float(value):.{self.num_digits}f}"
        if isinstance(value, Tensor | np.ndarray):
            return f"{name}: \n{value}\n"
        return f"{name}: {value}"

    # --- collecting --------------------------------------------------------------------------
    def _collect_scalars(
        self,
        custom_cfg: list[dict[str, Any]],
        runner: Runner,
        mode: str,
        reserve_prefix: bool = False,
    ) -> dict[str, Any]:
        """Name -> statistic of all scalars of a mode.

        Args:
            custom_cfg: as `_parse_windows_size` returns it.
            reserve_prefix: keep the mode in the names.
        """
        prefix = f"{mode}/"
        length = len(prefix)
        cut = 0 if reserve_prefix else length
        buffers = runner.message_hub.log_scalars
        tag: OrderedDict[str, Any] = OrderedDict()
        smoothed, window_size = self._smoothed, self.window_size
        for full_name, buffer in snapshot(buffers):
            if not full_name.startswith(prefix):
                continue
            smooth = smoothed.get(full_name)
            if smooth is None:
                smooth = self.mean_pattern.search(full_name[length:]) is not None
                smoothed[full_name] = smooth
            tag[full_name[cut:]] = buffer.mean(window_size) if smooth else buffer.current()
        for cfg in custom_cfg:
            arguments = dict(cfg)
            source = arguments.pop("data_src")
            name = arguments.pop("log_name", source)
            if prefix + source in buffers:
                statistic = buffers[prefix + source].statistics(**arguments)
                tag[(prefix + name)[cut:]] = statistic
        return tag

    def _collect_non_scalars(self, runner: Runner, mode: str) -> dict[str, Any]:
        """Name -> note of a mode that is no scalar."""
        return OrderedDict(
            (name if self.log_with_hierarchy else self._remove_prefix(name, f"{mode}/"), value)
            for name, value in snapshot(runner.message_hub.runtime_info)
            if name.startswith(f"{mode}/")
        )

    def _remove_prefix(self, string: str, prefix: str) -> str:
        """`string` without `prefix` at its start."""
        return string.removeprefix(prefix)

    def _check_custom_cfg(self) -> None:
        """Refuse settings that contradict each other."""
        shown: set[str] = set()
        for cfg in self.custom_cfg:
            assert "data_src" in cfg, f"an entry of custom_cfg must have `data_src`, got {cfg}"
            assert self.by_epoch or cfg.get("window_size") != "epoch", (
                "window_size cannot be epoch if LoggerHook.by_epoch is False."
            )
            source = cfg["data_src"]
            name = cfg.get("log_name", source)
            assert name not in shown, (
                f"Found duplicate {name} for {source}. Give each of the entries of `custom_cfg` "
                "a `log_name` of its own."
            )
            shown.add(name)

    def _parse_windows_size(
        self, runner: Runner, batch_idx: int, custom_cfg: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """A copy of the configs with "epoch" and "global" replaced by numbers of iterations."""
        parsed = [dict(cfg) for cfg in (self.custom_cfg if custom_cfg is None else custom_cfg)]
        for cfg in parsed:
            window = cfg.get("window_size")
            if window == "epoch":
                cfg["window_size"] = batch_idx + 1
            elif window == "global":
                cfg["window_size"] = runner.iter + 1
            elif window is not None and not isinstance(window, int):
                raise TypeError(
                    f"window_size should be int, epoch or global, but got invalid {window}"
                )
        return parsed

    # --- facts about the runner --------------------------------------------------------------
    def _get_max_memory(self, runner: Runner) -> int:
        """The most memory in MB that tensors took on the GPU since the last call; no sync."""
        device = getattr(runner.model, "output_device", None)
        peak = torch.cuda.max_memory_allocated(device=device)
        torch.cuda.reset_peak_memory_stats(device)
        return int(peak) // (1024 * 1024)

    def _get_iter(self, runner: Runner, batch_idx: int) -> int:
        """The iteration to show, counted from one: of the epoch, or of the run."""
        return batch_idx + 1 if self.by_epoch else runner.iter + 1

    def _get_epoch(self, runner: Runner, mode: str) -> int:
        """The epoch to show: the running one in training, the finished one in validation.

        Raises:
            ValueError: the mode is neither.
        """
        if mode == "train":
            return runner.epoch + 1
        if mode == "val":
            return runner.epoch if _has_trained(runner) else 0
        raise ValueError(f"runner mode should be 'train' or 'val', but got {mode}")

    def _get_cur_loop(self, runner: Runner, mode: str) -> Any:
        """The loop of a mode."""
        return getattr(runner, f"{mode if mode in ('train', 'val') else 'test'}_loop")

    def _get_dataloader_size(self, runner: Runner, mode: str) -> int:
        """The number of batches of a mode's data."""
        return len(self._get_cur_loop(runner, mode=mode).dataloader)


def _duration(seconds: int) -> str:
    """`1:02:03`, and `2 days, 1:02:03` from a day on."""
    if not 0 <= seconds < 86400:
        return str(datetime.timedelta(seconds=seconds))
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _has_trained(runner: Runner) -> bool:
    """Whether there is a training loop, not only a config of one (or none)."""
    return runner._train_loop is not None and not isinstance(runner._train_loop, dict)
