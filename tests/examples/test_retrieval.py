"""The retrieval example: its parts, and that it learns to find functions by their docstrings."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fasttrain.engine import default_argument_parser
from fasttrain.engine.defaults import setup_logger

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "retrieval"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    sys.path.insert(0, str(EXAMPLE))
    try:
        import train  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(EXAMPLE))
    return train


def test_words_are_taken_apart(example: ModuleType) -> None:
    docstrings = sys.modules["docstrings"]
    assert docstrings.words("json.JSONDecoder.raw_decode2") == [
        "json", "json", "decoder", "raw", "decode", "2",
    ]  # fmt: skip
    buckets, starts = docstrings.bags(["ab", ""])
    assert starts.tolist() == [0, len(docstrings.features("ab"))]
    assert len(buckets) == starts[1] + 1


def test_it_finds_far_more_than_by_chance(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = example.standard_library_pairs()
    assert len(pairs) > 3000
    monkeypatch.setattr(example, "standard_library_pairs", lambda: pairs[::3])
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    args = default_argument_parser().parse_args(
        ["SOLVER.EPOCH", "3", "SOLVER.EVAL_PERIOD", "100", "OUTPUT_DIR", str(tmp_path)]
    )
    try:
        assert example.main(args) > 10.0  # percent; 2 by chance
    finally:
        setup_logger(None, rank=1)  # closes the log file
    assert (tmp_path / "model_final.pth").exists()
