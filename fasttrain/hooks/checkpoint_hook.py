"""Save checkpoints at an interval, keep the newest and the best, publish bare ones at the end."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttrain.core.checkpoint import CheckpointError, Writer
from fasttrain.dist import get_world_size, is_main_process
from fasttrain.hooks.best_checkpoint import (
    best_file_name,
    checked_metrics,
    checked_names,
    checked_published_keys,
    score_of,
    settled_rule,
)
from fasttrain.hooks.checkpoint_folder import (
    CheckpointFolder,
    admit_step,
    newest_steps,
    storage_options,
)
from fasttrain.hooks.hook import Hook
from fasttrain.hooks.publish import publish
from fasttrain.hooks.score_rules import GREATER_KEYS, LESS_KEYS, RULES
from fasttrain.registry import HOOKS

if TYPE_CHECKING:
    from fasttrain.runner import Runner


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
        async_save: write in the background while training goes on (after a copy into memory). A
            dict has the arguments of `core.checkpoint.Writer`: `max_in_flight` checkpoints may be
            unfinished (1), and with `policy='skip'` a further one is left out instead of waiting;
            best and last ones, and all of a distributed run, wait.
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
        async_save: bool | dict = True,
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
        self._options = storage_options(file_client_args, backend_args)
        self.file_client_args = file_client_args
        self.backend_args = backend_args
        default_tmpl = "epoch_{}.pth" if by_epoch else "iter_{}.pth"
        self.filename_tmpl = default_tmpl if filename_tmpl is None else filename_tmpl
        self.greater_keys = checked_names(greater_keys, self._default_greater_keys, "greater_keys")
        self.less_keys = checked_names(less_keys, self._default_less_keys, "less_keys")
        self.save_best, rules = checked_metrics(save_best, rule)
        if self.save_best is not None:
            self._init_rule(rules, self.save_best)
            if len(self.key_indicators) == 1:
                self.best_ckpt_path: str | None = None
            else:
                self.best_ckpt_path_dict: dict[str, str | None] = {}
        self.published_keys = checked_published_keys(published_keys)
        self.last_ckpt: str | None = None
        limits = Writer(**(async_save if isinstance(async_save, dict) else {}))
        self._max_in_flight, self._skips = limits.max_in_flight, limits.policy == "skip"
        self._writer: Writer | None = None
        self._folder: CheckpointFolder | None = None
        if save_begin < 0:
            raise ValueError(f"save_begin should not be less than 0, but got {save_begin}")
        self.save_begin = save_begin

    def _init_rule(self, rules: Sequence[str | None], key_indicators: Sequence[str]) -> None:
        """Settle the rule of each metric, inferred from its name where none is given."""
        self.key_indicators = list(key_indicators)
        self.rules = [
            settled_rule(rule, key, self.greater_keys, self.less_keys)
            for rule, key in zip(rules, key_indicators, strict=True)
        ]
        self.is_better_than = {
            key: self.rule_map[rule]
            for key, rule in zip(key_indicators, self.rules, strict=True)
            if rule is not None
        }

    def before_train(self, runner: Runner) -> None:
        """Settle the folder, and take up what an earlier run kept."""
        work_dir = str(runner.work_dir)
        self._folder = folder = CheckpointFolder(
            work_dir, self.out_dir, self._options, runner.logger
        )
        self.out_dir = folder.path
        self.file_backend = self.file_client = folder.place
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
            steps = list(known.get("keep_ckpt_ids", []))
            kept, surplus = newest_steps(steps, self.max_keep_ckpts)
            self.keep_ckpt_ids: deque[int] = kept
            if is_main_process():
                for step in surplus:
                    folder.remove(folder.file(self.filename_tmpl.format(step)))

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
        if self._folder is not None:
            self._folder.release()

    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Save a copy with the published keys alone; its name ends in the file's own hash."""
        if is_main_process():
            assert self.published_keys is not None
            publish(self.file_backend, ckpt_path, self.published_keys)

    def _save_checkpoint(self, runner: Runner) -> None:
        """Save the state after this epoch or iteration."""
        if self._is_to_skip(runner):
            runner.logger.warning(
                "This checkpoint is skipped: an earlier one is still being written, and "
                "`async_save` says policy='skip'."
            )
            return
        if self.by_epoch:
            step = runner.epoch + 1
            meta = dict(epoch=step, iter=runner.iter)
        else:
            step = runner.iter + 1
            meta = dict(epoch=runner.epoch, iter=step)
        self._save_checkpoint_with_step(runner, step, meta=meta)

    def _is_to_skip(self, runner: Runner) -> bool:
        """Whether to leave a save out; ranks, which do not see rank 0's writer, leave none out."""
        if self._writer is None or not self._skips or get_world_size() > 1:
            return False
        is_last = self.is_last_train_epoch if self.by_epoch else self.is_last_train_iter
        return self._writer.is_full and not is_last(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save as the newest checkpoint; the oldest one goes once the new one is durable."""
        folder = self._settled_folder()
        gone = None
        if self.max_keep_ckpts > 0:
            gone = admit_step(self.keep_ckpt_ids, step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = last = folder.file(filename)
        runner.message_hub.update_info("last_ckpt", last)

        def finish() -> None:
            folder.point_at(last)
            if gone is not None:
                path = folder.file(self.filename_tmpl.format(gone))
                if path != last:
                    folder.remove(path)

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
            score = score_of(metrics, key)
            suffix = "" if len(self.key_indicators) == 1 else f"_{key}"
            best = runner.message_hub.runtime_info.get(f"best_score{suffix}")
            if best is None:
                best = self.init_value_map[rule]  # type: ignore[index]
            if score is None or not self.is_better_than[key](score, best):
                continue
            updated = True
            runner.message_hub.update_info(f"best_score{suffix}", score)
            filename = best_file_name(key, self.filename_tmpl.format(step))
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
        folder = self._settled_folder()
        path = folder.file(filename)
        if suffix:
            previous = self.best_ckpt_path_dict.get(key)
            self.best_ckpt_path_dict[key] = path
        else:
            previous = self.best_ckpt_path
            self.best_ckpt_path = path
        runner.message_hub.update_info(f"best_ckpt{suffix}", path)

        def finish() -> None:
            if previous and previous != path and folder.holds(previous):
                folder.remove(previous)
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
        if self.async_save and takes_blocking(runner_save):
            if is_main_process():
                self._writer = runner.checkpoint_writer
                self._writer.configure(self._max_in_flight)
            runner_save(*args, **kwargs, blocking=False, on_saved=finish)
            return
        runner_save(*args, **kwargs)
        if is_main_process():
            finish()

    def _settled_folder(self) -> CheckpointFolder:
        assert self._folder is not None, "before_train settles where checkpoints go"
        return self._folder


def takes_blocking(method: Callable[..., Any]) -> bool:
    """Whether a runner's `save_checkpoint` knows background saves (an override may not)."""
    try:
        return "blocking" in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False
