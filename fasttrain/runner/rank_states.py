"""What each rank adds to a checkpoint (random states, place in its data) and takes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from logging import Logger
from typing import Any

import torch
from torch import Tensor

from fasttrain.core import dist as core_dist
from fasttrain.core.checkpoint.ranks import RankExchange, unpack
from fasttrain.core.checkpoint.rng import derived_rng_state
from fasttrain.dist import get_dist_info

from .snapshot import Pending

WAIT_S = 30.0
WAIT_INTERRUPTED_S = 5.0  # the ranks may have stopped behind different iterations
WAIT_AFTER_ABSENCE_S = 1.0  # ranks that stayed away once are likely to do so again


class RankStates:
    """Gathers the ranks' states on rank 0; made once for a run.

    Args:
        name: of the run, the same on every rank.
        logger: told about ranks that stayed away.
    """

    def __init__(self, name: str, logger: Logger) -> None:
        self.name = name
        self.logger = logger
        self.wait_s = WAIT_S
        self._num_saves: Counter[str] = Counter()

    def gather(
        self,
        key: str,
        state: Mapping[str, Any],
        gradients: Pending | None,
        *,
        interrupted: bool = False,
    ) -> tuple[list[Tensor | None], Pending | None]:
        """Exchange `state` and average `gradients`, both of this rank.

        Args:
            key: names the save among those of the run; one that comes again, as after Ctrl-C right
                behind a save, is another save.
            state: small; sent to rank 0.
            gradients: summed up in an accumulation group that the save cuts; the ranks' own. Their
                mean is what the group's end would come to, but for rounding. None, on all ranks,
                when no group is cut.
            interrupted: the run is being ended; wait for a short while only.

        Returns:
            On rank 0, the packed states of the ranks from 1 on and the mean gradients; else nothing
            of use.
        """
        rank, world_size = get_dist_info()
        if world_size == 1:
            return [], gradients
        wait_s = min(self.wait_s, WAIT_INTERRUPTED_S) if interrupted else self.wait_s
        self._num_saves[key] += 1
        exchange = RankExchange(f"{self.name}/{key}/{self._num_saves[key]}", wait_s)
        if rank > 0:
            exchange.send(state)
            if gradients is not None and exchange.is_answered():
                _mean(gradients)
            return [], None
        states = exchange.receive()
        absent = [number for number, found in enumerate(states, 1) if found is None]
        if absent:
            self.wait_s = WAIT_AFTER_ABSENCE_S
            self.logger.warning(
                f"Rank(s) {_numbers(absent)} did not take part in saving {key}: the checkpoint "
                "holds no random states of theirs, and a resumed run will not equal this one bit "
                "for bit. Call `save_checkpoint` on every rank"
            )
        else:
            self.wait_s = WAIT_S
        if gradients is not None:
            exchange.answer(not absent)
            gradients = gradients if absent else _mean(gradients)
        return states, gradients


def _mean(gradients: Pending) -> Pending:
    """The gradients' mean over all ranks; where only some ranks have one, others count as zero.

    A collective: the ranks may have used different parameters, so they first agree on the list.
    """
    mine = {place: (tuple(tensor.shape), tensor.dtype) for place, tensor in gradients.items()}
    known: dict[tuple[Any, ...], tuple[tuple[int, ...], torch.dtype]] = {}
    for found in core_dist.all_gather_object(mine):
        known |= found
    averaged = {}
    for place, (shape, dtype) in sorted(known.items(), key=lambda item: str(item[0])):
        own = gradients.get(place)
        total = torch.zeros(shape, dtype=dtype) if own is None else own.detach().clone()
        core_dist.all_reduce(total, "mean")
        averaged[place] = total
    return averaged


def state_of_rank(own: Mapping[str, Any], logger: Logger) -> dict[str, Any]:
    """The loop's state for this rank, from what a checkpoint holds of all ranks.

    A rank without a state of its own goes on at rank 0's place with random numbers of its own.
    """
    rank, world_size = get_dist_info()
    first: dict[str, Any] = own.get("loop", {})
    others = own.get("other_ranks", [])
    saved = [True, *(state is not None for state in others)]
    missing = [number for number in range(world_size) if number >= len(saved) or not saved[number]]
    if first and (missing or len(saved) != world_size):
        derived = (
            f"; those of rank(s) {_numbers(missing)} are derived from rank 0's" if missing else ""
        )
        logger.warning(
            f"The checkpoint holds the random states of {sum(saved)} out of {len(saved)} "
            f"processes, this run has {world_size}{derived}. It goes on, but will not equal an "
            "uninterrupted one bit for bit."
        )
    if rank == 0 or not first:
        return first
    if rank in missing:
        return _derived(first, rank)
    state: dict[str, Any] = unpack(others[rank - 1])
    return state


def _derived(first: dict[str, Any], rank: int) -> dict[str, Any]:
    state = {**first}
    if "rng" in first:
        state["rng"] = derived_rng_state(first["rng"], rank)
    batches = first.get("batches")
    if isinstance(batches, dict):
        # A loader's own state says which samples come next, and those are rank 0's.
        batches = {key: value for key, value in batches.items() if key != "loader"}
        if "rng" in batches:
            batches["rng"] = derived_rng_state(batches["rng"], rank)
        state["batches"] = batches
    return state


def _numbers(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8]))
    return shown if len(ranks) <= 8 else f"{shown}, ... ({len(ranks)} in all)"
