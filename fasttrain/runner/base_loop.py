"""BaseLoop: what every loop has, a runner and a dataloader."""

from __future__ import annotations

import logging
from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from fasttrain.logging import print_log

if TYPE_CHECKING:
    from fasttrain.runner.runner import Runner


class BaseLoop(metaclass=ABCMeta):
    """Base class of all loops.

    Args:
        runner: the runner whose model and hooks the loop drives.
        dataloader: the data, or the dict to build its dataloader from.
    """

    dataloader: DataLoader

    def __init__(self, runner: Runner, dataloader: DataLoader | dict) -> None:
        self._runner = runner
        if isinstance(dataloader, dict):
            # On all ranks the same order, unless the user asked for a seed of each rank's own.
            diff_rank_seed = runner._randomness_cfg.get("diff_rank_seed", False)
            self.dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        else:
            self.dataloader = dataloader

    @property
    def runner(self) -> Runner:
        """The runner that this loop belongs to."""
        return self._runner

    @abstractmethod
    def run(self) -> Any:
        """Run the loop to its end."""

    def resume_state(self, epoch: int, iter: int) -> dict[str, Any]:
        """What a checkpoint must hold for this loop to go on exactly.

        Args:
            epoch: epochs done, as the checkpoint says.
            iter: iterations done, as the checkpoint says.
        """
        return {}

    def load_resume_state(self, state: dict[str, Any]) -> None:
        """Take over what `resume_state` returned; empty for a checkpoint of another package."""

    def close(self) -> None:
        """Let go of what the loop holds beside its dataloader; called at every end of a run."""

    @property
    def at_boundary(self) -> bool:
        """Whether model and counters stand between two iterations although the loop broke off."""
        return False

    def _dataset_meta(self, users: str) -> Any:
        """The dataset's `metainfo`, which the visualizer gets too; None, said in the log."""
        dataset: Any = getattr(self.dataloader, "dataset", None)
        if hasattr(dataset, "metainfo"):
            self._runner.visualizer.dataset_meta = dataset.metainfo
            return dataset.metainfo
        print_log(
            f"Dataset {type(dataset).__name__} has no metainfo. ``dataset_meta`` in {users} will "
            "be None.",
            logger="current",
            level=logging.WARNING,
        )
        return None

    def _require_data(self, name: str) -> None:
        """Raise when the dataloader gives no batch at all."""
        try:
            length = len(self.dataloader)
        except TypeError:  # an iterable dataset need not know its length
            return
        if length == 0:
            raise ValueError(
                f"the {name} dataloader is empty: expected at least one batch, got 0; check the "
                "dataset's files and filters, and that drop_last=True leaves a full batch"
            )
