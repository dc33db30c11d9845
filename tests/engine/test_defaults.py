"""Command line, set-up of a run, default writers."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fasttrain.engine import default_argument_parser, default_setup, default_writers, get_cfg
from fasttrain.engine.defaults import setup_logger


def test_arguments() -> None:
    args = default_argument_parser().parse_args(
        ["--config-file", "a.yaml", "--num-gpus", "2", "--resume", "SOLVER.BASE_LR", "0.1"]
    )
    assert (args.config_file, args.num_gpus, args.resume) == ("a.yaml", 2, True)
    assert (args.eval_only, args.num_machines, args.machine_rank) == (False, 1, 0)
    assert args.dist_url.startswith("tcp://127.0.0.1:")
    assert args.opts == ["SOLVER.BASE_LR", "0.1"]


def test_setup_writes_log_and_config_and_seeds(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.SEED = 3
    cfg.CUDNN_BENCHMARK = False
    try:
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
    finally:
        for handler in list(logging.getLogger("fasttrain").handlers):
            if getattr(handler, "_engine", False):
                logging.getLogger("fasttrain").removeHandler(handler)
                handler.close()


def test_other_processes_log_into_their_own_files(tmp_path: Path) -> None:
    root = setup_logger(tmp_path, 3)
    assert (tmp_path / "log.txt.rank3").exists()
    for handler in [h for h in root.handlers if getattr(h, "_engine", False)]:
        root.removeHandler(handler)
        handler.close()


def test_writers_stand_in_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    writers = default_writers(tmp_path / "new", 10)
    assert [type(writer).__name__ for writer in writers] == [
        "CommonMetricPrinter", "JSONWriter", "TensorboardXWriter",
    ]  # fmt: skip
    for writer in writers:
        writer.close()
