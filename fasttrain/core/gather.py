"""Scalars of a device, gathered into rows of float64 there: one launch for all of a call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fasttrain import native

# Numbers that a chunk of rows has room for.
CHUNK = 8192
_BYTES = 8  # of a float64


class Row(NamedTuple):
    """The numbers of one call: those of `data` from `start` on, and which are whole numbers."""

    data: Tensor
    start: int
    whole: bytes


class _Chunk:
    """Memory for rows, filled from the front by the work of one stream."""

    __slots__ = ("address", "data", "stream", "used")

    def __init__(self, size: int, device: torch.device) -> None:
        with torch.inference_mode(False):
            self.data = torch.empty(size, dtype=torch.float64, device=device)
        self.address = self.data.data_ptr()
        self.stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self.used = 0


class Gatherer:
    """Reads tensors of one element each, as they are now, into rows on their device.

    A compiled kernel takes tensors of any mix of types; without it `torch.stack` takes those of
    one. Both work on the current stream and keep to its order, as every operation of torch does.
    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._native = _compiled()
        self._chunks: dict[tuple[int, int], _Chunk] = {}  # by GPU (-1: the host) and its stream
        self._full: list[_Chunk] = []  # replaced since the last handing over
        self._gpu_usable: bool | None = None  # asking is slow; it does not change

    def take(self, tensors: list[Tensor]) -> Row | None:
        """One row of all tensors; `None`, with nothing done, when it takes several rows or when
        one of them is no scalar.

        Raises:
            RuntimeError: a CUDA graph is being captured.
        """
        device = tensors[0].device
        if device.type == "cuda" and self._launches(device):
            return self._gather(tensors, device, torch._C._cuda_getCurrentRawStream(device.index))
        if device.type == "cpu" and self._native is not None:
            return self._gather(tensors, device, 0)
        return stack(tensors)

    def _launches(self, device: torch.device) -> bool:
        if self._gpu_usable is None:
            refuse_capture(device)
            self._gpu_usable = self._native is not None and native.cuda_usable()
        return self._gpu_usable

    def _gather(self, tensors: list[Tensor], device: torch.device, stream: int) -> Row | None:
        index = -1 if device.index is None else device.index
        chunk = self._chunks.get((index, stream))
        if chunk is None or chunk.used + len(tensors) > chunk.data.numel():
            refuse_capture(device)
            fresh = _Chunk(max(CHUNK, len(tensors)), device)
            if chunk is not None:
                self._full.append(chunk)
            self._chunks[index, stream] = chunk = fresh
        start = chunk.used
        whole = self._native.gather(tensors, chunk.address + _BYTES * start, index, stream)
        if whole is None:
            return None
        chunk.used = start + len(tensors)
        return Row(chunk.data, start, whole)

    def hand_over(self, rows: Iterable[tuple[Row, int]]) -> list[Tensor]:
        """Tensors of the rows' numbers in their order, for work on the current streams.

        Args:
            rows: each with the number of its numbers.
        """
        spans: list[tuple[Tensor, int, int]] = []
        for row, size in rows:
            if spans and spans[-1][0] is row.data and spans[-1][2] == row.start:
                spans[-1] = (row.data, spans[-1][1], row.start + size)
            else:
                spans.append((row.data, row.start, row.start + size))
        for chunk in (*self._full, *self._chunks.values()) if spans else ():
            if chunk.stream is not None:
                _follow(chunk.stream, chunk.data)
        self._full.clear()
        return [data[start:stop] for data, start, stop in spans]


def _follow(stream: torch.cuda.Stream, data: Tensor) -> None:
    """Order the current stream of the device behind the one that filled `data`."""
    current = torch.cuda.current_stream(data.device)
    if current != stream:
        current.wait_stream(stream)
        data.record_stream(current)


def _compiled() -> Any:
    module: Any = native.module() if native.enabled() else None
    if not hasattr(module, "Gatherer"):
        return None
    names = enumerate(module.SCALAR_TYPES)
    types = {getattr(torch, name): code for code, name in names if hasattr(torch, name)}
    return module.Gatherer(Tensor, types, True)


def refuse_capture(device: torch.device) -> None:
    """Raise while a CUDA graph is captured: its replays would not record a scalar again."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "a scalar of a GPU cannot be recorded while a CUDA graph is captured, since its "
            "replays would not record it again; record the graph's outputs after each replay"
        )


def stack(tensors: Sequence[Tensor]) -> Row | None:
    """A row of tensors of one device, type and shape; `None` for any others."""
    refuse_capture(tensors[0].device)
    try:
        with torch.no_grad():
            data = torch.stack(list(tensors))
    except (TypeError, RuntimeError):  # the caller's long way takes them, or says what is wrong
        return None
    one_type = len({tensor.dtype for tensor in tensors}) == 1
    if data.numel() != len(tensors) or not one_type or data.is_complex():
        return None
    whole = not data.is_floating_point()
    return Row(data.view(-1), 0, bytes([whole]) * len(tensors))
