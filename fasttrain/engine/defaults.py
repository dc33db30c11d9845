"""What most training scripts do: parse arguments, set up folder, log and seed, choose writers."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch

from fasttrain import __version__, native
from fasttrain.core import env
from fasttrain.engine import comm
from fasttrain.engine.config import read, text_of
from fasttrain.engine.writers import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)

logger = logging.getLogger("fasttrain.engine")

_FORMAT = "[%(asctime)s %(name)s %(levelname)s]: %(message)s"


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with the arguments that training scripts share.

    Args:
        epilog: shown under the help; an example of usage when None.
    """
    parser = argparse.ArgumentParser(
        epilog=epilog
        or f"Change a config value: {sys.argv[0]} --config-file cfg.yaml SOLVER.BASE_LR 0.001",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="path of the config")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of the output folder"
    )
    parser.add_argument("--eval-only", action="store_true", help="perform evaluation only")
    parser.add_argument("--num-gpus", type=int, default=1, help="number of GPUs *per machine*")
    parser.add_argument("--num-machines", type=int, default=1, help="total number of machines")
    parser.add_argument("--machine-rank", type=int, default=0, help="this machine's number, from 0")
    port = 2**15 + 2**14 + hash(os.getuid() if hasattr(os, "getuid") else 1) % 2**14
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="where process 0 listens (tcp://host:port)",
    )
    parser.add_argument(
        "opts", default=None, nargs=argparse.REMAINDER, help="pairs of config key and value"
    )
    return parser


def setup_logger(output_dir: str | Path | None, rank: int) -> logging.Logger:
    """Let the package's log go to the console (main process) and to a file per process.

    The file is `log.txt` in `output_dir`, with `.rankN` behind it for other processes.
    """
    root = logging.getLogger("fasttrain")
    root.setLevel(logging.INFO)
    for handler in [h for h in root.handlers if getattr(h, "_engine", False)]:
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)] if rank == 0 else []
    if output_dir:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
        handlers.append(logging.FileHandler(Path(output_dir) / name))
    for handler in handlers:
        handler._engine = True  # type: ignore[attr-defined]
        handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%m/%d %H:%M:%S"))
        root.addHandler(handler)
    return root


def _setting(cfg: Any, *paths: str, default: Any) -> Any:
    """The value at the first of the paths that the config has."""
    found = (value for path in paths if (value := read(cfg, path)) is not None)
    return next(found, default)


def default_setup(cfg: Any, args: Any) -> None:
    """Make the output folder, start the log, save the config, seed, choose cuDNN's mode.

    Args:
        cfg: the config; `config.yaml` in its `OUTPUT_DIR` gets a copy. A lazy config's keys are
            `train.output_dir`, `train.seed` and `train.cudnn_benchmark`.
        args: the command line's arguments.
    """
    output_dir = _setting(cfg, "OUTPUT_DIR", "output_dir", "train.output_dir", default="")
    rank = comm.get_rank()
    if comm.is_main_process() and output_dir:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
    setup_logger(output_dir, rank)
    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info(
        "Environment: fasttrain %s, torch %s, native %s",
        __version__,
        torch.__version__,
        native.info(),
    )
    logger.info("Command line arguments: %s", args)
    text = text_of(cfg)
    logger.info("Running with full config:\n%s", text)
    if comm.is_main_process() and output_dir:
        path = Path(output_dir) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        logger.info("Full config saved to %s", path)
    seed = _setting(cfg, "SEED", "train.seed", default=-1)
    if seed < 0:
        seed = random.SystemRandom().randrange(2**31)
        logger.info("Using a generated random seed %d", seed)
    env.seed_everything(seed, rank=rank)
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = _setting(
            cfg, "CUDNN_BENCHMARK", "train.cudnn_benchmark", default=False
        )


def default_writers(output_dir: str | Path, max_iter: int | None = None) -> list[EventWriter]:
    """Console lines, `metrics.json` and TensorBoard events in `output_dir`.

    Args:
        output_dir: made when it is not there.
        max_iter: for the ETA.
    """
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    writers: list[EventWriter] = [
        CommonMetricPrinter(max_iter),
        JSONWriter(Path(output_dir) / "metrics.json"),
    ]
    if importlib.util.find_spec("tensorboard") is None:
        logger.warning("No TensorBoard events will be written: pip install tensorboard")
    else:
        writers.append(TensorboardXWriter(output_dir))
    return writers
