"""Save checkpoints at an interval, keep the newest and the best, publish bare ones at the end."""

from __future__ import annotations

import inspect
import math
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from logging import WARNING
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fasttrain.core.checkpoint import (
    POINTER,
    CheckpointError,
    FolderLock,
    Place,
    Writer,
    is_url,
    place_of,
    remove_leftovers,
)
from fasttrain.dist import is_main_process
from fasttrain.hooks.hook import Hook
from fasttrain.hooks.publish import publish
from fasttrain.hooks.score_rules import GREATER_KEYS, LESS_KEYS, RULES, infer_rule
from fasttrain.logging import print_log
from fasttrain.registry import HOOKS

if TYPE_CHECKING:
    from fasttrain.runner import Runner

_ILLEGAL_IN_NAMES = re.compile(r'[:*?"<>|/\\]')


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Saves in the order: whole file, durable; pointer file; only then older files go.

    Args:
        interval: every how many epochs or iterations to save; -1 never.
        by_epoch: whether `interval` counts epochs.
        save_optimizer: whether the optimizer's state goes into the file.
        save_param_scheduler: whether the schedulers' states go into the file.
        out_dir: parent of the folder of the checkpoints, which has the work folder's name; None
            saves into the work folder. Any URL that fsspec writes will do.
        max_keep_ckpts: how many of the newest to keep; 0 or less keeps all.
        save_last: whether to save after the last epoch or iteration in any case.
        save_best: metric or metrics whose best checkpoint is kept; 'auto' takes the first one.
        rule: 'greater' or 'less', one for all metrics or one each; None infers it from the name.
        greater_keys: names that tell the rule 'greater'.
        less_keys: names that tell the rule 'less'.
        file_client_args: old name of `backend_args`.
        filename_tmpl: file name with one `{}` for the epoch or iteration.
        backend_args: options of fsspec's file system.
        published_keys: entries of a checkpoint that a published copy, made after training, keeps.
        save_begin: epoch or iteration from which on to save.
        async_save: write in the background while training goes on (after a copy into memory).
        kwargs: passed to `runner.save_checkpoint`.
    """

    out_dir: str
    priority = "VERY_LOW"

    rule_map = RULES
    init_value_map = {"greater": -math.inf, "less": math.inf}
    _default_greater_keys = GREATER_KEYS
    _default_less_keys = LESS_KEYS

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        out_dir: str | Path | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,
        save_best: str | list[str] | None = None,
        rule: str | list[str] | None = None,
        greater_keys: Sequence[str] | None = None,
        less_keys: Sequence[str] | None = None,
        file_client_args: dict | None = None,
        filename_tmpl: str | None = None,
        backend_args: dict | None = None,
        published_keys: str | list[str] | None = None,
        save_begin: int = 0,
        async_save: bool = True,
        **kwargs: Any,
    ) -> None:
        self.interval = interval
        self.by_epoch = by_epoch
        self.save_optimizer = save_optimizer
        self.save_param_scheduler = save_param_scheduler
        self.out_dir = out_dir  # type: ignore[assignment]
        self.max_keep_ckpts = max_keep_ckpts
        self.save_last = save_last
        self.async_save = async_save
        self.args = kwargs
        _check_backend(file_client_args, backend_args)
        self.file_client_args = file_client_args
        self.backend_args = backend_args
        default_tmpl = "epoch_{}.pth" if by_epoch else "iter_{}.pth"
        self.filename_tmpl = default_tmpl if filename_tmpl is None else filename_tmpl
        self.greater_keys = _names(greater_keys, self._default_greater_keys, "greater_keys")
        self.less_keys = _names(less_keys, self._default_less_keys, "less_keys")
        self._init_save_best(save_best, rule)
        self.published_keys = [published_keys] if isinstance(published_keys, str) else None
        if isinstance(published_keys, Sequence) and not isinstance(published_keys, str):
            self.published_keys = list(published_keys)
        self.last_ckpt: str | None = None
        self._writer: Writer | None = None
        self._lock: FolderLock | None = None
        if save_begin < 0:
            raise ValueError(f"save_begin should not be less than 0, but got {save_begin}")
        self.save_begin = save_begin

    def _init_save_best(
        self, save_best: str | list[str] | None, rule: str | list[str] | None
    ) -> None:
        assert save_best is None or _is_str_or_list(save_best), (
            f'"save_best" should be a str or list of str or None, but got {type(save_best)}'
        )
        assert rule is None or _is_str_or_list(rule), (
            f'"rule" should be a str or list of str or None, but got {type(rule)}'
        )
        self.save_best = [save_best] if isinstance(save_best, str) else save_best
        if self.save_best is None:
            return
        if "auto" in self.save_best:
            assert len(self.save_best) == 1, 'Only support one "auto" in "save_best" list.'
        assert len(self.save_best) == len(set(self.save_best)), (
            'Find duplicate element in "save_best".'
        )
        rules: list[str | None] = [rule] if rule is None or isinstance(rule, str) else [*rule]
        if len(rules) == 1:
            rules = rules * len(self.save_best)
        assert len(rules) == len(self.save_best), (
            'Number of "rule" must be 1 or the same as number of "save_best", '
            f"but got {len(rules)}."
        )
        self._init_rule(rules, self.save_best)
        if len(self.key_indicators) == 1:
            self.best_ckpt_path: str | None = None
        else:
            self.best_ckpt_path_dict: dict[str, str | None] = {}

    def _init_rule(self, rules: Sequence[str | None], key_indicators: Sequence[str]) -> None:
        """Settle the rule of each metric, inferred from its name where none is given."""
        settled = [self._settle(rule, key) for rule, key in zip(rules, key_indicators, strict=True)]
        self.rules = settled
        self.key_indicators = list(key_indicators)
        self.is_better_than = {
            key: self.rule_map[rule]
            for key, rule in zip(key_indicators, settled, strict=True)
            if rule is not None
        }

    def _settle(self, rule: str | None, key: str) -> str | None:
        if rule is not None and rule not in self.rule_map:
            raise KeyError(f"rule must be greater, less or None, but got {rule}.")
        if rule is not None or key == "auto":
            return rule
        found = infer_rule(key, self.greater_keys, self.less_keys)
        if found is None:
            raise ValueError(
                f"Cannot infer the rule for key {key}, thus a specific rule must be specified."
            )
        return found

    def before_train(self, runner: Runner) -> None:
        """Settle the folder, and take up what an earlier run kept."""
        work_dir = str(runner.work_dir).rstrip("/")
        if self.out_dir is None:
            self.out_dir = str(runner.work_dir)
        else:
            out_dir = str(self.out_dir)
            self.out_dir = self._place(out_dir).join_path(out_dir, os.path.basename(work_dir))
        self.file_backend = self.file_client = self._place(self.out_dir)
        if is_main_process() and not is_url(self.out_dir):
            self._lock = FolderLock(self.out_dir)
            for path in remove_leftovers(self.out_dir):
                runner.logger.warning(f"Removed {path}, left by a save that was killed")
        runner.logger.info(f"Checkpoints will be saved to {self.out_dir}.")
        known = runner.message_hub.runtime_info
        if self.save_best is not None:
            if len(self.key_indicators) == 1:
                self.best_ckpt_path = known.get("best_ckpt")
            else:
                self.best_ckpt_path_dict = {
                    key: known.get(f"best_ckpt_{key}") for key in self.key_indicators
                }
        if self.max_keep_ckpts > 0:
            kept = list(known.get("keep_ckpt_ids", []))
            surplus = max(len(kept) - self.max_keep_ckpts, 0)
            if is_main_process():
                for step in kept[:surplus]:
                    self._remove(self._path(self.filename_tmpl.format(step)))
            self.keep_ckpt_ids: deque[int] = deque(kept[surplus:], self.max_keep_ckpts)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save when the interval is over or training ends."""
        if not self.by_epoch:
            return
        due = self.every_n_epochs(runner, self.interval, self.save_begin)
        if due or (self.save_last and self.is_last_train_epoch(runner)):
            runner.logger.info(f"Saving checkpoint at {runner.epoch + 1} epochs")
            self._save_checkpoint(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Save when the interval is over or training ends; tell an error of an earlier save."""
        if self._writer is not None:
            self._writer.check()
        if self.by_epoch:
            return
        due = self.every_n_train_iters(runner, self.interval, self.save_begin)
        if due or (self.save_last and self.is_last_train_iter(runner)):
            runner.logger.info(f"Saving checkpoint at {runner.iter + 1} iterations")
            self._save_checkpoint(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save the best checkpoint when this validation gave a new best score."""
        if not metrics:
            runner.logger.warning(
                "Since `metrics` is an empty dict, the behavior to save the best checkpoint will "
                "be skipped in this evaluation."
            )
            return
        self._save_best_checkpoint(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        """Finish the saves, then publish bare copies when `published_keys` are given."""
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            self._release()
        if self.published_keys is None:
            return
        bests = [getattr(self, "best_ckpt_path", None)]
        bests += list(getattr(self, "best_ckpt_path_dict", {}).values())
        for path in [self.last_ckpt, *bests]:
            if path is not None:
                self._publish_model(runner, path)

    def on_exception(self, runner: Runner) -> None:
        """Finish the saves that are under way, and let other runs into the folder."""
        try:
            if self._writer is not None:
                self._writer.close()
        except CheckpointError as error:
            runner.logger.error(str(error))
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Save a copy with the published keys alone; its name ends in the file's own hash."""
        if is_main_process():
            assert self.published_keys is not None
            publish(self.file_backend, ckpt_path, self.published_keys)

    def _save_checkpoint(self, runner: Runner) -> None:
        """Save the state after this epoch or iteration."""
        if self.by_epoch:
            step = runner.epoch + 1
            meta = dict(epoch=step, iter=runner.iter)
        else:
            step = runner.iter + 1
            meta = dict(epoch=runner.epoch, iter=step)
        self._save_checkpoint_with_step(runner, step, meta=meta)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save as the newest checkpoint; the oldest one goes once the new one is durable."""
        gone = None
        if self.max_keep_ckpts > 0:
            if not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    gone = self._path(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
                self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = last = self._path(filename)
        runner.message_hub.update_info("last_ckpt", last)
        pointer = os.path.join(runner.work_dir, POINTER)

        def finish() -> None:
            place_of(pointer).put_text(last, pointer)
            if gone is not None and gone != last:
                self._remove(gone)

        self._save(
            runner,
            finish,
            (self.out_dir, filename, self.file_client_args),
            dict(
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            ),
        )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Save one checkpoint for each metric that has a new best score."""
        if not self.save_best:
            return
        unit, step = ("epoch", runner.epoch) if self.by_epoch else ("iter", runner.iter)
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        if "auto" in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        updated = False
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            score = _score(metrics, key)
            suffix = "" if len(self.key_indicators) == 1 else f"_{key}"
            best = runner.message_hub.runtime_info.get(f"best_score{suffix}")
            if best is None:
                best = self.init_value_map[rule]  # type: ignore[index]
            if score is None or not self.is_better_than[key](score, best):
                continue
            updated = True
            runner.message_hub.update_info(f"best_score{suffix}", score)
            filename = f"best_{_ILLEGAL_IN_NAMES.sub('_', key)}_{self.filename_tmpl.format(step)}"
            self._save_best_file(runner, key, suffix, filename, meta)
            runner.logger.info(
                f"The best checkpoint with {score:0.4f} {key} at {step} {unit} is saved to "
                f"{filename}."
            )
        # The newest checkpoint was saved before this validation: save it again with the new best.
        if updated and self.last_ckpt is not None:
            self._save_checkpoint_with_step(runner, step, meta)

    def _save_best_file(
        self, runner: Runner, key: str, suffix: str, filename: str, meta: dict
    ) -> None:
        path = self._path(filename)
        if suffix:
            previous = self.best_ckpt_path_dict.get(key)
            self.best_ckpt_path_dict[key] = path
        else:
            previous = self.best_ckpt_path
            self.best_ckpt_path = path
        runner.message_hub.update_info(f"best_ckpt{suffix}", path)

        def finish() -> None:
            if previous and previous != path and self._place(previous).isfile(previous):
                self._remove(previous)
                runner.logger.info(f"The previous best checkpoint {previous} is removed")

        self._save(
            runner,
            finish,
            (self.out_dir,),
            dict(
                filename=filename,
                file_client_args=self.file_client_args,
                save_optimizer=False,
                save_param_scheduler=False,
                meta=meta,
                by_epoch=False,
                backend_args=self.backend_args,
            ),
        )

    def _save(
        self,
        runner: Runner,
        finish: Callable[[], None],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Let the runner save, then finish; in the background both when the runner offers it."""
        runner_save: Callable[..., None] = runner.save_checkpoint
        if self.async_save and _takes_blocking(runner_save):
            if is_main_process():
                self._writer = runner.checkpoint_writer
            runner_save(*args, **kwargs, blocking=False, on_saved=finish)
            return
        runner_save(*args, **kwargs)
        if is_main_process():
            finish()

    def _place(self, path: str) -> Place:
        return place_of(path, self.backend_args or self.file_client_args)

    def _path(self, filename: str) -> str:
        return self.file_backend.join_path(self.out_dir, filename)

    def _remove(self, path: str) -> None:
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            self._place(path).remove(path)


def _check_backend(file_client_args: dict | None, backend_args: dict | None) -> None:
    if file_client_args is None:
        return
    print_log(
        '"file_client_args" will be deprecated in future. Please use "backend_args" instead',
        logger="current",
        level=WARNING,
    )
    if backend_args is not None:
        raise ValueError('"file_client_args" and "backend_args" cannot be set at the same time.')


def _is_str_or_list(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)
    return isinstance(value, str) or is_list


def _names(given: Sequence[str] | None, default: list[str], argument: str) -> Sequence[str]:
    if given is None:
        return default
    if isinstance(given, str):
        return (given,)
    assert _is_str_or_list(list(given)), f"{argument} must be strings, got {given!r}"
    return given


def _score(metrics: dict[str, Any], key: str) -> Any:
    if key not in metrics:
        raise KeyError(
            f"save_best wants the metric {key!r}, which this validation did not give; it gave "
            f"{list(metrics)}"
        )
    score = metrics[key]
    return score.item() if isinstance(score, Tensor) else score


def _takes_blocking(method: Callable[..., Any]) -> bool:
    """Whether a runner's `save_checkpoint` knows background saves (an override may not)."""
    try:
        return "blocking" in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False
