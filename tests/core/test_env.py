"""Seeds, determinism, start methods, threads and open files."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from fasttrain.core import env


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


@pytest.fixture
def torch_flags() -> Iterator[None]:
    saved = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    workspace = os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = saved
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if workspace is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


def test_equal_seeds_give_equal_numbers_in_every_library() -> None:
    assert env.seed_everything(7) == 7
    first = draw()
    env.seed_everything(8)
    other = draw()
    env.seed_everything(7)
    assert draw() == first
    assert all(mine != theirs for mine, theirs in zip(first, other, strict=True))


def test_the_rank_is_added_to_the_seed() -> None:
    assert env.seed_everything(5, rank=3) == 8
    assert torch.initial_seed() == 8


def test_a_seed_beyond_numpys_range_is_folded() -> None:
    assert env.seed_everything(2**32 + 1) == 2**32 + 1
    folded = np.random.rand()
    np.random.seed(1)
    assert np.random.rand() == folded


def test_deterministic_asks_torch_and_cublas(torch_flags: None) -> None:
    torch.backends.cudnn.benchmark = True
    env.seed_everything(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_every_worker_of_every_rank_has_its_own_seed() -> None:
    seeds = [
        env.worker_seed(100, worker_id=worker, num_workers=4, rank=rank)
        for rank in range(3)
        for worker in range(4)
    ]
    assert seeds == list(range(100, 112))


def test_another_start_method_warns_and_is_set() -> None:
    before = mp.get_start_method(allow_none=True)
    try:
        mp.set_start_method("fork", force=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env.set_start_method("fork")
        with pytest.warns(UserWarning, match="start method `spawn` is different .* `fork`"):
            env.set_start_method("spawn")
        assert mp.get_start_method() == "spawn"
    finally:
        mp.set_start_method(before, force=True)


def test_threads_per_process_are_limited_only_where_the_user_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with pytest.warns(UserWarning, match="Setting MKL_NUM_THREADS"):
        env.limit_process_threads()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("5", "1")


@pytest.mark.skipif(os.name == "nt", reason="no limits of open files on Windows")
def test_the_open_file_limit_rises_and_never_falls() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        assert env.raise_open_file_limit(400) == 400
        assert env.raise_open_file_limit(200) == 400
        hard = before[1]
        if hard != resource.RLIM_INFINITY:
            assert env.raise_open_file_limit(hard + 1) == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
