"""RunnerCheckpoints: the methods of a runner that save, load and resume."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fasttrain.core.checkpoint import Writer, order_after_copies, plain_tree
from fasttrain.core.sharding import any_sharded, help_gather
from fasttrain.dist import is_main_process
from fasttrain.logging import MessageHub, MMLogger

from . import checkpoint as files
from . import snapshot
from .builders.model import unwrapped
from .interrupt import Interrupt
from .part_builders import RunnerBuilders
from .rank_states import RankStates, state_of_rank
from .utils import set_random_seed


class RunnerCheckpoints(RunnerBuilders):
    """Saves the state of a run and goes on from it."""

    logger: MMLogger
    message_hub: MessageHub
    param_schedulers: Any
    auto_scale_lr: dict | None
    _load_from: str | None
    _resume: bool
    _has_loaded: bool
    _randomness_cfg: dict[str, Any]
    _checkpoint_writer: Writer | None = None
    _rank_states: RankStates | None = None
    _interrupt: Interrupt

    def set_randomness(
        self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False
    ) -> None:
        """Seed python, numpy and torch.

        Args:
            seed: None draws one and agrees on it with all ranks.
            diff_rank_seed: add the rank to the seed.
            deterministic: have torch use deterministic algorithms.
        """
        self._deterministic = deterministic
        self._seed = set_random_seed(
            seed, deterministic=deterministic, diff_rank_seed=diff_rank_seed
        )

    def load_or_resume(self) -> None:
        """Load or resume as `load_from` and `resume` say; once."""
        if self._has_loaded:
            return
        source = self._load_from
        if self._resume and source is None:
            source = files.find_intact_checkpoint(self._work_dir)
            if source is not None:
                self.logger.info(f"Auto resumed from the latest checkpoint {source}.")
        if source is None:
            return
        if self._resume:
            self.resume(source)
        else:
            self.load_checkpoint(source)
        self._has_loaded = True

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = "cpu",
        strict: bool = False,
        revise_keys: list = [(r"^module.", "")],  # noqa: B006
    ) -> Any:
        """Load weights, and return the whole checkpoint.

        Args:
            filename: a path, a URL or a model's name such as torchvision://resnet50.
            map_location: where to put the tensors, as in `torch.load`.
            strict: raise when names do not match.
            revise_keys: (pattern, replacement) pairs for the names.
        """
        checkpoint = files._load_checkpoint(filename, map_location=map_location)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        order_after_copies(snapshot.optimizers_of(self.optim_wrapper))
        result = files._load_checkpoint_to_model(
            unwrapped(self.model), checkpoint, strict, revise_keys=revise_keys
        )
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return result

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = "default",
    ) -> None:
        """Go on from a checkpoint.

        Args:
            filename: a path or a URL.
            resume_optimizer: take over the optimizer's state.
            resume_param_scheduler: take over the schedulers' states.
            map_location: where to put the tensors; 'default' is the CPU, from which they are
                copied to where they belong.
        """
        location = "cpu" if map_location == "default" else map_location
        checkpoint = self.load_checkpoint(filename, map_location=location)
        meta = checkpoint.get("meta", {})
        if not {"epoch", "iter"} <= meta.keys():
            raise ValueError(
                f"{filename} cannot be resumed from: expected `epoch` and `iter` in `meta`, got "
                f"{sorted(meta)}; use it with load_from and resume=False to take its weights alone"
            )
        loop = self.train_loop
        loop._epoch, loop._iter = meta["epoch"], meta["iter"]
        snapshot.check_world_size(meta, self._world_size, self.auto_scale_lr, self.logger)
        self._resume_seed(meta.get("seed"))
        snapshot.warn_of_other_dataset(meta, self.train_dataloader.dataset, self.logger)
        if "message_hub" in checkpoint:
            self.message_hub.load_state_dict(checkpoint["message_hub"])
        if "optimizer" in checkpoint and resume_optimizer:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            self.optim_wrapper.load_state_dict(checkpoint["optimizer"])
        if (
            "param_schedulers" in checkpoint
            and resume_param_scheduler
            and self.param_schedulers is not None
        ):
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
            snapshot.load_scheduler_states(
                self.param_schedulers, checkpoint["param_schedulers"], self.logger
            )
        own = checkpoint.get(snapshot.OWN_STATE, {})
        loop.load_resume_state(state_of_rank(own, self.logger))
        snapshot.load_pending_gradients(unwrapped(self.model), own.get("gradients", {}))
        self._has_loaded = True
        self.logger.info(f"resumed epoch: {loop.epoch}, iter: {loop.iter}")

    def _resume_seed(self, seed: int | None) -> None:
        """Take the checkpoint's seed; the sampler, built with another one, is built again."""
        if seed is None or seed == self._seed:
            return
        given = self._randomness_cfg.get("seed")
        if given is not None:
            self.logger.warning(
                f'The value of random seed in the checkpoint "{seed}" is different from the value '
                f'in `randomness` config "{given}"'
            )
        self._randomness_cfg = {**self._randomness_cfg, "seed": seed}
        self.set_randomness(**self._randomness_cfg)
        if isinstance(self._train_dataloader, dict):
            loop = self.train_loop
            dataset = loop.dataloader.dataset
            loop.dataloader = self.build_dataloader(
                {**self._train_dataloader, "dataset": dataset},
                seed=self._seed,
                diff_rank_seed=self._randomness_cfg.get("diff_rank_seed", False),
            )

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
        blocking: bool = True,
        on_saved: Callable[[], None] = lambda: None,
    ) -> None:
        """Save a checkpoint on rank 0; the other ranks, if they call this too, add to it.

        What they add are their random states and their places in the data, without which a resumed
        run does not equal an uninterrupted one.

        Args:
            out_dir: folder or URL to save to.
            filename: name in it.
            file_client_args: old name of `backend_args`.
            save_optimizer: save the optimizer's state.
            save_param_scheduler: save the schedulers' states.
            meta: further entries of `meta`; `epoch` and `iter` replace those of the loop.
            by_epoch: called within the stage after an epoch, else within that after an iteration.
            backend_args: options of fsspec's file system.
            blocking: False returns once the state may change again; the file is then written in
                the background, and an error in it raised by the next save. On a GPU, what the
                optimizers update may be copied as late as in their next step: who changes it by
                other means calls `fasttrain.core.checkpoint.order_after_copies` first.
            on_saved: called once the file is durable; when not blocking, in another thread.
        """
        if meta is not None and not isinstance(meta, dict):
            raise TypeError(f"meta should be a dict or None, but got {type(meta)}")
        counters = {
            "epoch": self.epoch + 1 if by_epoch else self.epoch,
            "iter": self.iter if by_epoch else self.iter + 1,
        }
        meta = {**counters, **(meta or {})}
        own, sums = self._own_state(meta, os.path.join(out_dir, filename))
        is_helper = not is_main_process()
        if is_helper and not any_sharded(self.model.parameters()):
            return
        checkpoint = self._checkpoint(meta, own)
        if save_optimizer:
            checkpoint["optimizer"] = snapshot.optimizer_state(self.optim_wrapper)
            snapshot.put_sums(checkpoint["optimizer"], sums)
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint["param_schedulers"] = snapshot.scheduler_states(self.param_schedulers)
        self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        if is_helper:
            plain_tree(checkpoint, help_gather)  # the main rank walks the same tree
            return
        if blocking and self._checkpoint_writer is not None:
            self._checkpoint_writer.drain()  # an older state must not come after a newer one
        files.save_checkpoint(
            checkpoint,
            os.path.join(out_dir, filename),
            file_client_args,
            backend_args,
            writer=None if blocking else self.checkpoint_writer,
            on_saved=on_saved,
            updated_by=snapshot.optimizers_of(self.optim_wrapper),
        )

    @property
    def checkpoint_writer(self) -> Writer:
        """Writes checkpoints in the background; made at its first use."""
        if self._checkpoint_writer is None:
            self._checkpoint_writer = Writer()
        return self._checkpoint_writer

    def _own_state(
        self, meta: dict[str, Any], name: str
    ) -> tuple[dict[str, Any], snapshot.Pending]:
        """What only this package's runs need, of all ranks, and the ranks' mean float32 sums.

        Complete on rank 0 alone.
        """
        loop = self._built_train_loop
        own: dict[str, Any] = {}
        if loop is not None:
            own["loop"] = loop.resume_state(meta["epoch"], meta["iter"])
        pending = snapshot.pending_gradients(unwrapped(self.model), self.optim_wrapper)
        if self._rank_states is None:
            self._rank_states = RankStates(self._experiment_name, self.logger)
        key = f"{name} (epoch {meta['epoch']}, iter {meta['iter']})"
        states, pending = self._rank_states.gather(
            key, own.get("loop", {}), pending, interrupted=self._interrupt.requested
        )
        gradients, sums = snapshot.split_pending(pending or {})
        return {**own, "gradients": gradients, "other_ranks": states}, sums

    def _checkpoint(self, meta: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
        """Everything of a checkpoint but the optimizer and its schedulers."""
        meta = snapshot.run_meta(
            meta, cfg_text=self.cfg.pretty_text, seed=self._seed, name=self._experiment_name
        )
        loop = self._built_train_loop
        if loop is not None and hasattr(loop.dataloader.dataset, "metainfo"):
            meta["dataset_meta"] = self._savable(loop.dataloader.dataset.metainfo, "metainfo")
        hub = self.message_hub.state_dict()
        hub["runtime_info"] = self._savable(hub["runtime_info"], "message_hub.runtime_info")
        return {
            "meta": meta,
            "state_dict": unwrapped(self.model).state_dict(),
            "message_hub": hub,
            snapshot.OWN_STATE: own,
        }

    def _savable(self, entries: Any, label: str) -> Any:
        return (
            snapshot.savable(entries, label, self.logger) if isinstance(entries, dict) else entries
        )
