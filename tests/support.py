"""What several tests share: the save-and-resume check that every stateful part goes through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def assert_same(left: Any, right: Any, path: str = "value") -> None:
    """Compare two nested values bit for bit (tensors, arrays, containers, scalars; NaN is NaN)."""
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor), f"{path}: {type(left)} != {type(right)}"
        assert left.dtype == right.dtype, f"{path}: {left.dtype} != {right.dtype}"
        assert torch.equal(torch.nan_to_num(left), torch.nan_to_num(right)), (
            f"{path}: tensors differ"
        )
        assert torch.equal(left != left, right != right), f"{path}: NaNs differ"
    elif isinstance(left, np.ndarray):
        np.testing.assert_array_equal(left, right, err_msg=path)
    elif isinstance(left, dict):
        assert isinstance(right, dict), f"{path}: {type(left)} != {type(right)}"
        assert list(left) == list(right), f"{path}: keys {list(left)} != {list(right)}"
        for key in left:
            assert_same(left[key], right[key], f"{path}[{key!r}]")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), f"{path}: {len(left)} != {len(right)} entries"
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{path}[{index}]")
    else:
        assert left == right or (left != left and right != right), f"{path}: {left!r} != {right!r}"


def check_save_and_resume(
    make: Callable[[], Any],
    advance: Callable[[Any, int], Any],
    *,
    steps: int = 10,
    cut: int = 4,
    state: Callable[[Any], Any] = lambda part: part.state_dict(),
    load: Callable[[Any, Any], Any] = lambda part, saved: part.load_state_dict(saved),
) -> None:
    """Run, save midway, load into a fresh object, continue, and compare bit for bit.

    Args:
        make: builds a fresh object; called twice, must give equal starts.
        advance: `advance(part, step)` does one step and returns what the step showed.
        steps: number of steps of the uninterrupted run.
        cut: the step before which the state is saved.
        state: reads the state to save.
        load: puts a saved state into a fresh object.
    """
    whole = make()
    shown: list[Any] = []
    saved: Any = None
    for step in range(steps):
        if step == cut:
            saved = copy.deepcopy(state(whole))
        shown.append(copy.deepcopy(advance(whole, step)))
    fresh = make()
    load(fresh, saved)
    for step in range(cut, steps):
        assert_same(advance(fresh, step), shown[step], f"step {step}")
    assert_same(state(fresh), state(whole), "final state")
