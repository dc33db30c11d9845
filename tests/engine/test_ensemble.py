"""Ensembles: each member's weights come from its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine_toys import Classifier, Rows, register, toy_cfg
from fasttrain.engine import Checkpointer, DefaultTrainer
from fasttrain.engine.registries import DATASETS_REGISTRY, META_ARCH_REGISTRY
from support import assert_same


@register(DATASETS_REGISTRY, "toy_rows")
def rows(cfg: Any, stage: str) -> Rows:
    return Rows()


@register(META_ARCH_REGISTRY, "ToyEnsemble")
class Ensemble(Classifier):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.members = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])


@register(META_ARCH_REGISTRY, "ToyAlone")
class Alone(Classifier):
    pass


def cfg_of(folder: Path, weights: list[Path], model: str = "ToyEnsemble") -> Any:
    return toy_cfg(folder, model, "toy_rows", MODEL__ENSEMBLE_WEIGHTS=["", *map(str, weights)])


@pytest.fixture
def weights(tmp_path: Path) -> list[Path]:
    for name in ("a", "b"):
        Checkpointer(nn.Linear(6, 3), tmp_path / "members").save(name)
    return [tmp_path / "members" / "a.pth", tmp_path / "members" / "b.pth"]


def test_each_member_gets_its_file(tmp_path: Path, weights: list[Path]) -> None:
    trainer = DefaultTrainer(cfg_of(tmp_path, weights))
    trainer.resume_or_load()
    for member, path in zip(trainer.model.members, weights, strict=True):
        assert_same(member.state_dict(), torch.load(path)["model"])
    trainer.train()
    resumed = DefaultTrainer(cfg_of(tmp_path, weights))
    resumed.resume_or_load()  # the run's own checkpoint comes before them
    assert resumed.start_iter == 16


def test_files_and_members_have_to_match(tmp_path: Path, weights: list[Path]) -> None:
    trainer = DefaultTrainer(cfg_of(tmp_path, weights[:1]))
    with pytest.raises(ValueError, match="each of the 2 members of Ensemble, got 1"):
        trainer.resume_or_load()
    trainer = DefaultTrainer(cfg_of(tmp_path, weights, "ToyAlone"))
    with pytest.raises(TypeError, match="ENSEMBLE_WEIGHTS names 2 files, but Alone has no members"):
        trainer.resume_or_load()
