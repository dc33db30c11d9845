"""The engine's page: its smallest model and data set train as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_toys import toy_cfg, values
from fasttrain.engine import build_engine

PAGE = Path(__file__).resolve().parents[2] / "docs" / "engine.md"


def test_the_smallest_run_of_the_page_trains(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index("import torch\nimport torch.nn.functional")
    exec(text[begin : text.index("```", begin)], {})
    cfg = toy_cfg(tmp_path, "Line", "Lines", LOSSES__NAMES=["Squares"], SOLVER__EPOCH=60)
    cfg.SOLVER.update({"GRAD_CLIP": 0.0, "BASE_LR": 0.1})
    trainer = build_engine(cfg)
    trainer.train()
    assert values(trainer, "total_loss")[-1] < 1e-4
    assert trainer.model.weight.item() == pytest.approx(2, abs=0.05)
