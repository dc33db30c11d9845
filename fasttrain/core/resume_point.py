"""Where a pass goes on when batch size, dataset or number of processes are others than before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch.utils.data import DistributedSampler

from fasttrain.core import dist
from fasttrain.core.batch_order import can_skip, sampler_of, skips_samples


@dataclass(frozen=True, slots=True)
class DataShape:
    """What turns a number of batches into samples; None where the loader does not tell.

    Attributes:
        batch_size: samples of one batch of one process.
        world_size: number of processes.
        length: samples of the dataset.
    """

    batch_size: int | None
    world_size: int
    length: int | None

    @classmethod
    def of(cls, loader: Any) -> DataShape:
        """The shape of a dataloader in this run."""
        batch_size = getattr(loader, "batch_size", None)
        if batch_size is None:
            batch_size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
        if batch_size is None and _is_unbatched(loader):
            batch_size = 1
        try:
            length = len(loader.dataset)
        except (AttributeError, TypeError, NotImplementedError):
            length = None
        return cls(batch_size if isinstance(batch_size, int) else None, dist.world_size(), length)

    def plain(self) -> dict[str, int | None]:
        """As `from_plain` takes it."""
        return asdict(self)

    def differences(self, now: DataShape) -> list[str]:
        """Which known entries of `self`, the shape before, differ from those of `now`; in words."""
        labels = {
            "batch_size": "batch size",
            "world_size": "number of processes",
            "length": "length of the dataset",
        }
        found = []
        for name, label in labels.items():
            before, after = getattr(self, name), getattr(now, name)
            if before is not None and after is not None and before != after:
                found.append(f"{label} {after} instead of {before}")
        return found


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What of a pass is over.

    Attributes:
        batches: number of batches, of the present size.
        samples: number of this process's samples, None when only batches can be counted.
        note: what was done about a changed shape, empty when there is nothing to tell.
        is_warning: whether data come again.
    """

    batches: int
    samples: int | None = None
    note: str = ""
    is_warning: bool = False


def resume_point(target: Mapping[str, Any], loader: Any) -> ResumePoint:
    """Where to go on in `loader` after the pass that `target`, a saved position, tells of.

    Samples that a changed batch size or number of processes leaves countable are skipped; in all
    other cases the pass begins anew, so that data may come again but none is left out.
    """
    consumed, samples = int(target["consumed"]), target.get("samples")
    now = DataShape.of(loader)
    before = DataShape(**target["shape"]) if "shape" in target else now
    differences = before.differences(now)
    if not differences:
        return ResumePoint(consumed, samples if skips_samples(loader) else None)
    changed = "Resuming in the middle of a pass with " + " and ".join(differences)
    obstacle = _obstacle(before, now, samples, loader)
    if obstacle:
        return ResumePoint(
            0,
            note=f"{changed}: {obstacle}, so this pass over the data begins anew and the "
            f"{consumed} batches that were done come again.",
            is_warning=True,
        )
    seen = int(samples) * before.world_size  # type: ignore[arg-type]
    mine, again = divmod(seen, now.world_size)
    note = f"{changed}: it goes on behind the {seen} samples that were done"
    note += f", of which {again} come again." if again else "."
    if not skips_samples(loader):
        return ResumePoint(mine, None, note, bool(again))
    return ResumePoint(_batches_done(mine, loader.batch_sampler), mine, note, bool(again))


def _obstacle(before: DataShape, now: DataShape, samples: Any, loader: Any) -> str:
    """Why the samples that are over cannot be told or skipped, empty when they can."""
    if before.length is not None and now.length is not None and before.length != now.length:
        return "the samples come in another order now"
    if not (skips_samples(loader) or _is_unbatched(loader)):
        former = getattr(loader, "batch_sampler", None) if can_skip(loader) else loader
        return f"{type(former).__name__} forms batches of its own"
    if samples is None:
        return "how many samples were done is not known"
    if before.world_size != now.world_size and not _deals_in_turn(sampler_of(loader)):
        return f"how {type(sampler_of(loader)).__name__} shares samples out is not known"
    return ""


def _deals_in_turn(sampler: Any) -> bool:
    """Whether process r of n gets the samples r, r + n, ... of an order that all share."""
    return isinstance(sampler, DistributedSampler) or callable(getattr(sampler, "skip", None))


def _is_unbatched(loader: Any) -> bool:
    return can_skip(loader) and loader.batch_sampler is None


def _batches_done(samples: int, order: Any) -> int:
    """The number of the next batch; that of the pass's last one is what it is without a cut."""
    whole, rest = divmod(samples, order.batch_size)
    left = len(order.sampler) - samples
    if not rest or left < 0:
        return int(whole)
    num_left = left // order.batch_size if order.drop_last else -(-left // order.batch_size)
    return max(int(whole), int(len(order) - num_left))
