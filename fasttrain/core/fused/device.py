"""The parameter table on a GPU: launches only, no read from the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fasttrain.core.fused.binding import Binding, Step, table_device
from fasttrain.core.fused.clipping import ClipPlan


class DeviceBinding(Binding):
    """A table on a GPU: a step launches kernels, reads nothing back, and can be captured.

    A learning rate that is a float32 tensor on the GPU is read there in each step, so that a
    captured step follows it; every other setting of a group is fixed by the capture.
    """

    def _finish(self) -> None:
        if not self.usable:
            return
        size = self._table.workspace_bytes()
        with self._current():
            self._workspace = torch.empty(size, dtype=torch.uint8, device=self.device)
            self._table.finish_cuda(self.device.index, self._workspace.data_ptr(), self._stream())

    def _current(self) -> AbstractContextManager[None]:
        """Make the table's device current, as torch does: never waking another one."""
        if torch.cuda.current_device() == self.device.index:
            return nullcontext()
        return torch.cuda.device(self.device)

    def _stream(self) -> int:
        return torch._C._cuda_getCurrentRawStream(self.device.index)

    def never_updated(self) -> set[Tensor]:
        """Parameters whose states have seen no update yet.  # sync point"""
        with self._current():
            self._table.read_first(self._stream())
        return super().never_updated()

    def run(
        self,
        optimizer: Any,
        scale: Tensor | None,
        found_inf: Tensor | None,
        divisor: float,
        clip: ClipPlan,
        check: bool,
        zero: bool,
    ) -> Step | str:
        gradients = self.gradients(optimizer)
        if isinstance(gradients, str):
            return gradients
        norm = torch.empty((), dtype=torch.float32, device=self.device) if clip.by_norm else None
        found = torch.empty((), dtype=torch.float32, device=self.device) if check else None
        # The loss scaler may live on another GPU. What is copied stays alive until the launch.
        inputs = [
            t if t is None or t.device == self.device else t.to(self.device, non_blocking=True)
            for t in (scale, found_inf)
        ]
        with self._current():
            done = self._table.step_cuda(
                optimizer.param_groups,
                optimizer.state,
                gradients,
                1.0 / divisor,
                self._norms[clip.kind],
                clip.power,
                clip.max_norm,
                clip.limit,
                check,
                zero,
                *(0 if t is None else t.data_ptr() for t in (*inputs, norm, found)),
                self._stream(),
            )
        if done.__class__ is str:
            stale: str = done
            return stale
        if done:  # into a graph, whose replays write to the workspace
            optimizer._captured.append(self._workspace)
        return norm, found


def bind(optimizer: Any, previous: Binding | None = None) -> Binding:
    """Build the table of `optimizer`, creating the states of parameters that have gradients.

    Raises:
        RuntimeError: a CUDA graph is being captured, which would replay the preparations.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if any(p.device.type == "cuda" for p in params) and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{type(optimizer).__name__} must prepare its states outside of a CUDA graph: run one "
            "step with all gradients there before the capture"
        )
    device = table_device(params)
    first = previous.never_updated() if previous is not None and previous.usable else set()
    with torch.no_grad():
        return (Binding if device.type == "cpu" else DeviceBinding)(optimizer, first)
