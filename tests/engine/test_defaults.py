"""Command line, set-up of a run, default writers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fasttrain.engine import default_argument_parser, default_setup, default_writers, get_cfg
from fasttrain.engine.defaults import setup_logger


@pytest.fixture
def log_closed_afterwards() -> Iterator[None]:
    yield
    root = logging.getLogger("fasttrain")
    for handler in [h for h in root.handlers if getattr(h, "_engine", False)]:
        root.removeHandler(handler)
        handler.close()


def test_arguments() -> None:
    args = default_argument_parser().parse_args(
        ["--config-file", "a.yaml", "--num-gpus", "2", "--resume", "SOLVER.BASE_LR", "0.1"]
    )
    assert (args.config_file, args.num_gpus, args.resume) == ("a.yaml", 2, True)
    assert (args.eval_only, args.num_machines, args.machine_rank) == (False, 1, 0)
    assert args.dist_url.startswith("tcp://127.0.0.1:")
    assert args.opts == ["SOLVER.BASE_LR", "0.1"]


def test_setup_writes_log_and_config_and_seeds(tmp_path: Path, log_closed_afterwards: None) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.SEED = 3
    cfg.CUDNN_BENCHMARK = False
    default_setup(cfg, SimpleNamespace(eval_only=False))
    first = torch.rand(1)
    default_setup(cfg, SimpleNamespace(eval_only=False))
    assert torch.equal(torch.rand(1), first)
    again = get_cfg()
    again.merge_from_file(tmp_path / "out" / "config.yaml")
    assert again == cfg
    logging.getLogger("fasttrain.engine").info("hello")
    text = (tmp_path / "out" / "log.txt").read_text()
    assert text.count("hello") == 1 and "World size: 1" in text


def test_setup_knows_the_keys_of_a_lazy_config(
    tmp_path: Path, log_closed_afterwards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    section = SimpleNamespace(output_dir=str(tmp_path / "out"), seed=5, cudnn_benchmark=True)
    default_setup(SimpleNamespace(train=section), {})
    first = torch.rand(1)
    assert torch.equal(first, torch.rand(1, generator=torch.Generator().manual_seed(5)))
    assert torch.backends.cudnn.benchmark
    assert "seed: 5" in (tmp_path / "out" / "config.yaml").read_text()


def test_other_processes_log_into_their_own_files(
    tmp_path: Path, log_closed_afterwards: None
) -> None:
    setup_logger(tmp_path, 3)
    assert (tmp_path / "log.txt.rank3").exists()


def test_writers_stand_in_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    writers = default_writers(tmp_path / "new", 10)
    assert [type(writer).__name__ for writer in writers] == [
        "CommonMetricPrinter", "JSONWriter", "TensorboardXWriter",
    ]  # fmt: skip
    for writer in writers:
        writer.close()
