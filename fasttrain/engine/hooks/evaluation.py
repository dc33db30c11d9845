"""EvalHook: an evaluation now and then, its results in the storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

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
        ValueError: `iters_per_epoch` is less than 1.
    """

    @overload
    def __init__(
        self, eval_period: int, eval_function: Callable[[], Any], eval_after_train: bool = True
    ) -> None: ...
    @overload
    def __init__(
        self,
        eval_period: int,
        eval_start: int,
        eval_function: Callable[[int], Any],
        iters_per_epoch: int,
        stage: str,
        multi_gpu_eval: bool,
    ) -> None: ...
    def __init__(  # type: ignore[misc]  # the second position has another name in each form
        self,
        eval_period: int,
        eval_start: Any = None,
        eval_function: Any = None,
        iters_per_epoch: int | None = None,
        stage: str = "",
        multi_gpu_eval: bool = False,
        eval_after_train: bool = True,
    ) -> None:
        if callable(eval_start):  # the first form, by position
            if eval_function is not None:
                eval_after_train = bool(eval_function)
            eval_start, eval_function = None, eval_start
        if not callable(eval_function) or (eval_start is None) != (iters_per_epoch is None):
            raise TypeError(
                "expected EvalHook(eval_period, eval_function, eval_after_train=True) or "
                "EvalHook(eval_period, eval_start, eval_function, iters_per_epoch, stage, "
                f"multi_gpu_eval), got eval_start={eval_start!r}, eval_function={eval_function!r} "
                f"and iters_per_epoch={iters_per_epoch!r}"
            )
        by_epoch = iters_per_epoch is not None
        if iters_per_epoch is not None and iters_per_epoch < 1:
            raise ValueError(f"iters_per_epoch must be >= 1, got {iters_per_epoch}")
        self._period = eval_period
        self._start = -1 if eval_start is None else eval_start
        self._evaluate = eval_function if by_epoch else lambda epoch: eval_function()
        self._iters_per_epoch = iters_per_epoch or 1
        self._prefix = f"{stage}/" if stage else ""
        self._everywhere = multi_gpu_eval or not by_epoch
        self._eval_after_train = eval_after_train

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        epoch, rest = divmod(done, self._iters_per_epoch)
        last = done == self.trainer.max_iter  # left to after_train: no evaluation runs twice
        if self._period > 0 and not rest and epoch % self._period == 0 and not last:
            self._do_eval(epoch)

    def after_train(self) -> None:
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._do_eval(self.trainer.max_iter // self._iters_per_epoch)

    def _do_eval(self, epoch: int) -> None:
        if epoch <= self._start:
            return
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
