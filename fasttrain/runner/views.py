"""RunnerViews: the read-only properties of a runner."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from fasttrain.core.hooks import HookList
from fasttrain.evaluator import Evaluator
from fasttrain.hooks.hook import Hook

from .priority import Priority, get_priority


class RunnerViews:
    """What a runner shows of itself."""

    _experiment_name: str
    _model_name: str
    _work_dir: str
    _log_dir: str
    _launcher: str
    _distributed: bool
    _rank: int
    _world_size: int
    _deterministic: bool
    _seed: int
    _timestamp: str
    _hook_list: HookList[Hook]
    # Built in the classes below this one.
    _train_loop: Any
    _built_train_loop: Any
    train_loop: Any
    val_loop: Any
    test_loop: Any

    @property
    def experiment_name(self) -> str:
        """Name of the experiment."""
        return self._experiment_name

    @property
    def model_name(self) -> str:
        """Name of the model's class."""
        return self._model_name

    @property
    def work_dir(self) -> str:
        """Folder of the checkpoints."""
        return self._work_dir

    @property
    def log_dir(self) -> str:
        """Folder of this run's logs, in the work folder."""
        return self._log_dir

    @property
    def launcher(self) -> str:
        """How the processes were started."""
        return self._launcher

    @property
    def distributed(self) -> bool:
        """Whether several processes train together."""
        return self._distributed

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self._rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self._world_size

    @property
    def deterministic(self) -> bool:
        """Whether torch uses deterministic algorithms."""
        return self._deterministic

    @property
    def seed(self) -> int:
        """The seed of the random generators."""
        return self._seed

    @property
    def timestamp(self) -> str:
        """When the runner was created."""
        return self._timestamp

    @property
    def hooks(self) -> HookList[Hook]:
        """The registered hooks in order."""
        return self._hook_list

    @property
    def _hooks(self) -> HookList[Hook]:
        return self._hook_list

    @_hooks.setter
    def _hooks(self, hooks: list[Hook]) -> None:
        self._hook_list.replace(hooks, _priority_of)

    @property
    def epoch(self) -> int:
        """Epochs done; 0 before the training loop is built."""
        loop = self._built_train_loop
        return 0 if loop is None else loop.epoch

    @property
    def iter(self) -> int:
        """Iterations done; 0 before the training loop is built."""
        loop = self._built_train_loop
        return 0 if loop is None else loop.iter

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole training; 0 without a training."""
        loop = self._built_train_loop or self.train_loop
        return 0 if loop is None else loop.max_epochs

    @property
    def max_iters(self) -> int:
        """Iterations of the whole training; 0 without a training."""
        loop = self._built_train_loop or self.train_loop
        return 0 if loop is None else loop.max_iters

    @property
    def train_dataloader(self) -> DataLoader:
        """The training loop's dataloader."""
        return (self._built_train_loop or self.train_loop).dataloader

    @property
    def val_dataloader(self) -> DataLoader:
        """The validation loop's dataloader."""
        return self.val_loop.dataloader

    @property
    def test_dataloader(self) -> DataLoader:
        """The test loop's dataloader."""
        return self.test_loop.dataloader

    @property
    def val_evaluator(self) -> Evaluator:
        """The validation loop's evaluator."""
        return self.val_loop.evaluator

    @property
    def test_evaluator(self) -> Evaluator:
        """The test loop's evaluator."""
        return self.test_loop.evaluator

    @property
    def val_interval(self) -> int:
        """Epochs or iterations between validations."""
        return self.train_loop.val_interval

    @property
    def val_begin(self) -> int:
        """The first epoch or iteration to validate after."""
        return self.train_loop.val_begin


def _priority_of(hook: Any) -> int:
    """The number of a hook's priority; of an object that does not tell one, the usual number."""
    try:
        return get_priority(hook.priority)
    except (AttributeError, TypeError):
        return Priority.NORMAL.value
