"""EvalHook: an evaluation now and then, its results in the storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fasttrain.engine import comm
from fasttrain.engine.events import flatten_results
from fasttrain.engine.metrics import require_floats
from fasttrain.engine.trainer_base import HookBase


class EvalHook(HookBase):
    """Runs `eval_function` every so often and at the end, and puts what it returns.

    Two forms:

    * `EvalHook(eval_period, eval_function, eval_after_train=True)`: a period in iterations, a
      function without arguments; every process calls it.
    * `EvalHook(eval_period, eval_start, eval_function, iters_per_epoch, stage, multi_gpu_eval)`: a
      period in epochs from the epoch after `eval_start` on, a function that takes the epoch; only
      the main process calls it unless `multi_gpu_eval`.

    Results may be nested; the parts of a name are joined by `/`, below `stage` in the second form.
    No iteration is evaluated twice, and nothing is evaluated after an error.

    Raises:
        TypeError: the arguments fit neither form.
    """

    def __init__(self, eval_period: int, *args: Any, **kwargs: Any) -> None:
        self._period = eval_period
        self._last_evaluated = -1
        if (args and callable(args[0])) or "eval_after_train" in kwargs:
            self._set_by_iteration(*args, **kwargs)
        elif "eval_start" in kwargs or "iters_per_epoch" in kwargs or len(args) > 1:
            self._set_by_epoch(*args, **kwargs)
        else:
            self._set_by_iteration(*args, **kwargs)

    def _set_by_iteration(
        self, eval_function: Callable[[], Any], eval_after_train: bool = True
    ) -> None:
        self._evaluate = lambda epoch: eval_function()
        self._iters_per_epoch, self._start = 1, -1
        self._prefix, self._everywhere = "", True
        self._eval_after_train = eval_after_train

    def _set_by_epoch(
        self,
        eval_start: int,
        eval_function: Callable[[int], Any],
        iters_per_epoch: int,
        stage: str,
        multi_gpu_eval: bool,
    ) -> None:
        if iters_per_epoch < 1:
            raise ValueError(f"iters_per_epoch must be >= 1, got {iters_per_epoch}")
        self._evaluate = eval_function
        self._iters_per_epoch, self._start = iters_per_epoch, eval_start
        self._prefix, self._everywhere = f"{stage}/" if stage else "", multi_gpu_eval
        self._eval_after_train = True

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        epoch, rest = divmod(done, self._iters_per_epoch)
        last = done == self.trainer.max_iter  # left to after_train
        if self._period > 0 and not rest and epoch % self._period == 0 and not last:
            self._do_eval(epoch)

    def after_train(self) -> None:
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._do_eval(self.trainer.max_iter // self._iters_per_epoch)

    def _do_eval(self, epoch: int) -> None:
        iteration = self.trainer.storage.iter
        if epoch <= self._start or iteration == self._last_evaluated:
            return
        self._last_evaluated = iteration
        comm.synchronize()
        if self._everywhere or comm.is_main_process():
            results = self._evaluate(epoch)
            if results:
                if not isinstance(results, Mapping):
                    raise TypeError(f"an evaluation must return a dict of results, got {results!r}")
                for name, value in require_floats(flatten_results(results)).items():
                    self.trainer.storage.put_scalar(
                        self._prefix + name, value, smoothing_hint=False
                    )
        comm.synchronize()
