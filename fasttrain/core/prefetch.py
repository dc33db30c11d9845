"""Copy batch k + 1 to the device on a side stream while batch k is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Prefetcher:
    """Iterate over batches that are on `device` already; on a CPU they pass through untouched.

    On CUDA one batch is fetched ahead. The copies overlap with computing only out of pinned memory
    (`pin_memory=True` in the dataloader).

    Args:
        batches: nested dicts, lists and tuples of tensors; other objects pass through.
        device: where the batches are needed.
    """

    def __init__(self, batches: Iterable[Any], device: torch.device | str) -> None:
        self.batches = batches
        self.device = torch.device(device)

    def __iter__(self) -> Iterator[Any]:
        if self.device.type != "cuda":
            return iter(self.batches)
        return self._on_side_stream()

    def _on_side_stream(self) -> Iterator[Any]:
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        ahead: tuple[Any, torch.cuda.Event] | None = None
        for batch in self.batches:
            with torch.cuda.stream(side):
                moved = move(batch, self.device), side.record_event()
            if ahead is not None:
                yield self._hand_over(*ahead)
            ahead = moved
        if ahead is not None:
            yield self._hand_over(*ahead)

    def _hand_over(self, batch: Any, copied: torch.cuda.Event) -> Any:
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        record(batch, current)
        return batch


def move(value: Any, device: torch.device) -> Any:
    """`value` with all its tensors on `device`, copied without waiting where memory is pinned."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return type(value)({key: move(item, device) for key, item in value.items()})  # type: ignore[call-arg]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(move(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(move(item, device) for item in value)
    return value


def record(value: Any, stream: torch.cuda.Stream) -> None:
    """Tell the allocator that `stream` uses all tensors of `value`."""
    if isinstance(value, Tensor):
        if value.is_cuda:
            value.record_stream(stream)
    elif isinstance(value, Mapping):
        for item in value.values():
            record(item, stream)
    elif isinstance(value, list | tuple):
        for item in value:
            record(item, stream)
