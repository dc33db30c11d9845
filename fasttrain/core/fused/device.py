"""The parameter table on a GPU: launches only, no read from the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasttrain.core.fused.binding import Binding, Step, table_device
from fasttrain.core.fused.clipping import ClipPlan


class DeviceBinding(Binding):
    """A table on a GPU: a step launches kernels, reads nothing back, and can be captured."""

    def _finish(self) -> None:
        if not self.usable:
            return
        size = self._table.workspace_bytes()
        self._workspace = torch.empty(size, dtype=torch.uint8, device=self.device)
        stream = torch.cuda.current_stream(self.device).cuda_stream
        self._table.finish_cuda(self.device.index, self._workspace.data_ptr(), stream)

    def never_updated(self) -> set[Tensor]:
        """Nobody knows on the host: that is decided on the device."""
        return set()

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
        norm = torch.empty((), device=self.device) if clip.by_norm else None
        found = torch.empty((), device=self.device) if check else None
        done = self._table.step_cuda(
            optimizer.param_groups,
            1.0 / divisor,
            self._norms[clip.kind],
            clip.power,
            clip.max_norm,
            clip.limit,
            check,
            zero,
            *(0 if t is None else t.data_ptr() for t in (scale, found_inf, norm, found)),
            torch.cuda.current_stream(self.device).cuda_stream,
        )
        if done.__class__ is str:
            stale: str = done
            return stale
        return norm, found


def bind(optimizer: Any, previous: Binding | None = None) -> Binding:
    """Build the table of `optimizer`, creating the states of parameters that have gradients."""
    first = previous.never_updated() if previous is not None and previous.usable else set()
    device = table_device(p for group in optimizer.param_groups for p in group["params"])
    with torch.no_grad():
        return (Binding if device.type == "cpu" else DeviceBinding)(optimizer, first)
