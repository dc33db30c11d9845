"""Compose: the pipeline from an annotation to a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fasttrain.registry import TRANSFORMS


class Compose:
    """A pipeline: transforms one after the other, until one of them gives None.

    Args:
        transforms: callables, or configs of registered ones.
    """

    def __init__(self, transforms: Sequence[dict | Callable] | None) -> None:
        self.transforms: list[Callable] = []
        for transform in transforms or ():
            if isinstance(transform, dict):
                built = TRANSFORMS.build(transform)
                if not callable(built):
                    raise TypeError(f"transform should be a callable object, but got {type(built)}")
                self.transforms.append(built)
            elif callable(transform):
                self.transforms.append(transform)
            else:
                raise TypeError(
                    f"transform must be a callable object or dict, but got {type(transform)}"
                )

    def __call__(self, data: dict) -> dict | None:
        for transform in self.transforms:
            data = transform(data)
            if data is None:
                return None
        return data

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform}" for transform in self.transforms)
        return f"{type(self).__name__}({lines}\n)"
