"""Copy a state's storages into reused host memory, so that training may go on at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from fasttrain import native
from fasttrain.core.checkpoint.container import Plan, write
from fasttrain.core.checkpoint.watch import Period, Watch

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state as it was at one moment, in host memory.

    Attributes:
        plan: the tree and storages over the buffer.
        crcs: the storages' checksums where the copy took them, else empty.
        wait: blocks until the copy is complete (copies from a GPU run on).
    """

    plan: Plan
    crcs: Sequence[int]
    wait: Callable[[], None]

    def write(self, path: str, *, durable: bool) -> None:
        """Write the state as a file once the copy is complete, giving way to training."""
        self.wait()
        write(self.plan, path, crcs=self.crcs, durable=durable, gently=True)

    def release(self) -> None:
        """Nothing: the buffer is reused."""


class HostBuffer:
    """One block of host memory that grows to the largest snapshot and is then reused.

    Args:
        pinned: page-locked, for copies from a GPU that run beside its work.
    """

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self._block = torch.empty(0, dtype=torch.uint8)

    @property
    def num_bytes(self) -> int:
        return self._block.numel()

    def reserve(self, num_bytes: int) -> Tensor:
        """shape [>= num_bytes], uint8; the contents of an earlier snapshot are lost."""
        if num_bytes > self.num_bytes:
            self._block = torch.empty(0, dtype=torch.uint8)  # free it before taking more
            # No huge pages: when memory is full of cached files, making them stalls for a second.
            self._block = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self.pinned)
        return self._block


def snapshot(plan: Plan, buffer: HostBuffer, *, updated_by: Iterable[Any] = ()) -> Snapshot:
    """Copy the plan's storages into `buffer`.

    Host storages are copied when this returns. GPU storages are copied by a side stream; the work
    that follows on the current stream waits for them on the device, but the storages that only the
    optimizers `updated_by` change (see `Watch`) are waited for no sooner than in their next step.
    """
    offsets, total = _places([storage.nbytes() for storage in plan.storages])
    block = buffer.reserve(total).untyped_storage()
    targets = [
        block[offset : offset + storage.nbytes()]
        for offset, storage in zip(offsets, plan.storages, strict=True)
    ]
    copied = Plan(plan.tree, targets)
    if any(storage.device.type == "cuda" for storage in plan.storages):
        return Snapshot(copied, (), _copy_from_gpu(plan.storages, targets, updated_by))
    hosts = [
        storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]
        for storage in plan.storages
    ]
    return Snapshot(copied, _copy_on_host(hosts, targets), _nothing)


def _places(sizes: Sequence[int]) -> tuple[list[int], int]:
    offsets, cursor = [], 0
    for size in sizes:
        offsets.append(cursor)
        cursor += -(-size // _ALIGNMENT) * _ALIGNMENT
    return offsets, cursor


def _copy_on_host(
    sources: Sequence[UntypedStorage], targets: Sequence[UntypedStorage]
) -> Sequence[int]:
    if native.enabled():
        spans = [(source.data_ptr(), source.nbytes()) for source in sources]
        pointers = [target.data_ptr() for target in targets]
        crcs = native.module().checkpoint_copy(spans, pointers, torch.get_num_threads())
        return list(crcs)
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
    return ()


def _copy_from_gpu(
    sources: Sequence[UntypedStorage],
    targets: Sequence[UntypedStorage],
    updated_by: Iterable[Any],
) -> Callable[[], None]:
    """Enqueue the copies and return the function that waits for them on the host.

    Storages that lie on the host, such as random states, are copied at once.
    """
    watches, periods, late = _late_storages(updated_by)
    by_device: dict[torch.device, list[tuple[UntypedStorage, UntypedStorage]]] = {}
    for source, target in zip(sources, targets, strict=True):
        if source.device.type == "cuda":
            by_device.setdefault(source.device, []).append((source, target))
        else:
            target.copy_(source)
    events = [_copy_beside(device, pairs, late, watches) for device, pairs in by_device.items()]

    def wait() -> None:
        for event in events:
            event.synchronize()  # sync point of the thread that writes
        for period in periods:
            period.check()

    return wait


def _late_storages(updated_by: Iterable[Any]) -> tuple[list[Watch], list[Period], set[int]]:
    """Who watches over what may be copied late, and which storages these are."""
    watches, periods = [], []
    for optimizer in updated_by:
        watch = Watch.of(optimizer)
        period = watch.begin(optimizer)
        if period is not None:
            watches.append(watch)
            periods.append(period)
    tensors = [tensor for period in periods for tensor in period.tensors]
    return watches, periods, {tensor.untyped_storage()._cdata for tensor in tensors}


def _copy_beside(
    device: torch.device,
    pairs: Sequence[tuple[UntypedStorage, UntypedStorage]],
    late: set[int],
    watches: Iterable[Watch],
) -> Any:
    """Enqueue one device's copies on a stream of their own; the event of their end."""
    current = torch.cuda.current_stream(device)
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        _enqueue([pair for pair in pairs if pair[0]._cdata not in late], side)
        others_done = side.record_event()
        _enqueue([pair for pair in pairs if pair[0]._cdata in late], side)
        all_done = side.record_event()
    current.wait_event(others_done)
    for watch in watches:
        watch.add(device, all_done)
    return all_done


def _enqueue(pairs: Sequence[tuple[UntypedStorage, UntypedStorage]], side: Any) -> None:
    for source, target in pairs:
        if source.nbytes() == 0:
            continue
        tensor = torch.empty(0, dtype=torch.uint8, device=source.device).set_(source)  # type: ignore[call-overload]
        if tensor.is_cuda:
            tensor.record_stream(side)
        host = torch.empty(0, dtype=torch.uint8).set_(target)  # type: ignore[call-overload]
        host.copy_(tensor, non_blocking=True)


def _nothing() -> None:
    pass
