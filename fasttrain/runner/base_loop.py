"""BaseLoop: what every loop has, a runner and a dataloader."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

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
