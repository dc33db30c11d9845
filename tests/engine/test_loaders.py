"""Loaders of a config: who sees which samples, and what is too small to train on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from engine_toys import Rows, toy_cfg
from fasttrain.engine import comm
from fasttrain.engine.loaders import Share, build_loader, usable_device
from fasttrain.engine.registries import DATASETS_REGISTRY


@pytest.fixture(autouse=True)
def registered() -> None:
    if "loader_rows" not in DATASETS_REGISTRY:
        DATASETS_REGISTRY.register(lambda cfg, stage: Rows(19), name="loader_rows")


def ids(loader: Any) -> list[list[int]]:
    return [[sample["id"] for sample in batch] for batch in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def test_training_shuffles_and_drops_the_rest(tmp_path: Path) -> None:
    cfg = toy_cfg(tmp_path, "", "loader_rows")
    seen = ids(build_loader(cfg, "loader_rows", "train"))
    assert [len(batch) for batch in seen] == [8, 8]
    assert flat(seen) != list(range(16))


def test_tests_see_everything_in_order(tmp_path: Path) -> None:
    cfg = toy_cfg(tmp_path, "", "loader_rows")
    assert flat(ids(build_loader(cfg, "loader_rows", "val"))) == list(range(19))
    assert build_loader(cfg, "", "val") is None


def test_one_by_one_every_sample_is_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = toy_cfg(tmp_path, "", "loader_rows")
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = build_loader(cfg, "loader_rows", "test", one_by_one=True)
        assert all(len(batch) == 1 for batch in ids(loader))
        seen += flat(ids(loader))
        assert len(Share(19)) == len(loader)
    assert sorted(seen) == list(range(19))


def test_less_than_a_batch_is_an_error(tmp_path: Path) -> None:
    cfg = toy_cfg(tmp_path, "", "loader_rows", DATALOADER__TRAIN_BATCH_SIZE=20)
    with pytest.raises(ValueError, match=r"'loader_rows' has 19 samples .* one batch of 20: .*low"):
        build_loader(cfg, "loader_rows", "train")


def test_an_unknown_data_set_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"no 'loader_row' in the DATASETS registry .*loader_rows"):
        build_loader(toy_cfg(tmp_path, "", ""), "loader_row", "train")


def test_devices_are_taken_as_named() -> None:
    assert usable_device("cpu").type == "cpu"
