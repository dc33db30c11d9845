"""Random states of python, numpy, torch and CUDA as one plain tree that loads without pickling."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def collect_rng_state() -> dict[str, Any]:
    """The states of every global generator of this process; CUDA's only once CUDA is in use."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.uint32).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Put back what `collect_rng_state` returned; parts that are missing stay as they are.

    Raises:
        ValueError: the state was taken with another number of CUDA devices.
    """
    if "python" in state:
        saved = state["python"]
        random.setstate((saved["version"], tuple(saved["words"]), saved["gauss"]))
    if "numpy" in state:
        saved = state["numpy"]
        keys = saved["keys"].cpu().numpy().astype(np.uint32)
        np.random.set_state(
            (saved["name"], keys, saved["position"], saved["has_gauss"], saved["cached"])
        )
    if "torch" in state:
        torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        _restore_cuda(state["cuda"])


def derived_rng_state(state: dict[str, Any], number: int) -> dict[str, Any]:
    """A state with the same parts as `state`, determined by it and `number`."""
    digest = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8)
    for tensor in (state["torch"], state["numpy"]["keys"]):
        digest.update(tensor.cpu().numpy().tobytes())
    seed = int.from_bytes(digest.digest(), "little") >> 1
    kept = collect_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        torch.default_generator.manual_seed(seed)
        derived = {key: value for key, value in collect_rng_state().items() if key != "cuda"}
    finally:
        restore_rng_state({key: value for key, value in kept.items() if key != "cuda"})
    if "cuda" in state and torch.cuda.is_available():
        generator = torch.Generator("cuda").manual_seed(seed)
        derived["cuda"] = [generator.get_state() for _ in state["cuda"]]
    return {key: value for key, value in derived.items() if key in state}


def _restore_cuda(states: list[Tensor]) -> None:
    found = torch.cuda.device_count()
    if len(states) != found:
        raise ValueError(
            f"expected random states of {found} CUDA devices, got {len(states)}; resume on as many "
            "devices as the state was saved with, or leave the random state out"
        )
    torch.cuda.set_rng_state_all([state.cpu() for state in states])
