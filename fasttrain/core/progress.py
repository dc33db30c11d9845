"""Counters of a training run, and the protocol of everything that is saved with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """What can be put into a checkpoint and taken out again."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain containers, numbers and tensors."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a run is: finished epochs and batches, and how many there will be.

    `None` as a maximum means that no such limit is set.
    """

    epoch: int = 0
    iter: int = 0
    max_epochs: int | None = None
    max_iters: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the four counters."""
        return asdict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the counters of `state_dict`.

        Raises:
            KeyError: `epoch` or `iter` is missing.
            ValueError: a counter is negative.
        """
        for name in ("epoch", "iter"):
            if name not in state_dict:
                raise KeyError(
                    f"a saved progress must have 'epoch' and 'iter', got {sorted(state_dict)}"
                )
        known = {field.name: state_dict.get(field.name) for field in fields(self)}
        for name, value in known.items():
            if value is not None and value < 0:
                raise ValueError(f"{name} must be >= 0, got {value}")
        for name, value in known.items():
            setattr(self, name, value)
