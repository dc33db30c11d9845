"""`fasttrain train CONFIG` and `fasttrain test CONFIG CHECKPOINT`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from fasttrain.cli import plot
from fasttrain.cli.errors import INPUT_ERRORS, UsageError, describe, user_input
from fasttrain.cli.live import LiveHook, wants_live_display
from fasttrain.config import Config, DictAction
from fasttrain.core.checkpoint import read_pointer
from fasttrain.registry import RUNNERS
from fasttrain.runner import Runner

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `train` and `test` to the command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("config", metavar="CONFIG", help="a config file: .py, .yaml or .json")
    shared.add_argument("--work-dir", metavar="FOLDER", help="where logs and checkpoints go")
    shared.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE",
        help="override entries of the config: model.width=16 optim_wrapper.optimizer.lr=0.1",
    )  # fmt: skip
    shared.add_argument("--launcher", choices=LAUNCHERS, default="none", help="job launcher")
    shared.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)

    train = commands.add_parser("train", parents=[shared, common], help="train a model")
    train.add_argument(
        "--resume", nargs="?", const="auto", metavar="PATH",
        help="continue from PATH, or from the newest checkpoint of the work folder ('auto')",
    )  # fmt: skip
    train.add_argument("--amp", action="store_true", help="train with automatic mixed precision")
    train.add_argument(
        "--auto-scale-lr", action="store_true",
        help="scale the learning rate by the batch size (the config's auto_scale_lr)",
    )  # fmt: skip
    train.add_argument("--test", action="store_true", help="test the best checkpoint afterwards")
    train.add_argument("--plot", action="store_true", help="draw the curves afterwards")
    train.set_defaults(run=run_train)

    test = commands.add_parser("test", parents=[shared, common], help="test a checkpoint")
    test.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint: a path or a URL")
    test.set_defaults(run=run_test)


# ------------------------------------------------------------------------------ configs
def load_config(options: argparse.Namespace) -> Config:
    """Read the config and apply what both commands can override.

    The config's folder is put on the import path, so that `custom_imports` finds modules beside it.
    """
    path = Path(options.config)
    if not path.is_file():
        raise UsageError(f"no such config file: {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with user_input(f"cannot load the config {path}"):
        cfg = Config.fromfile(str(path))
        if options.cfg_options is not None:
            cfg.merge_from_dict(options.cfg_options)
    cfg.launcher = options.launcher
    os.environ.setdefault("LOCAL_RANK", str(options.local_rank))
    if options.work_dir is not None:
        cfg.work_dir = options.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / path.stem)
    return cfg


def use_amp(cfg: Config) -> None:
    """Turn a plain OptimWrapper into an AmpOptimWrapper with a dynamic loss scale."""
    wrapper = cfg.get("optim_wrapper")
    if wrapper is None:
        raise UsageError("--amp needs a config with an optim_wrapper, this one has none")
    kind = wrapper.get("type", "OptimWrapper")
    if kind == "AmpOptimWrapper":
        print("--amp: the config trains with AmpOptimWrapper already", file=sys.stderr)
        return
    if kind != "OptimWrapper":
        raise UsageError(f"--amp needs optim_wrapper.type='OptimWrapper', the config has {kind!r}")
    wrapper.type = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


def use_auto_scale_lr(cfg: Config) -> None:
    """Switch the config's own auto_scale_lr on."""
    entry = cfg.get("auto_scale_lr")
    if entry is None or "base_batch_size" not in entry:
        raise UsageError(
            "--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config: the "
            "batch size that its learning rate was chosen for"
        )
    entry.enable = True


def build_runner(cfg: Config) -> Any:
    """The runner that the config asks for, with a live display when there is a terminal."""
    with user_input("cannot build the runner from the config"):
        if "runner_type" in cfg:
            runner = RUNNERS.build(cfg)
        else:
            runner = Runner.from_cfg(cfg)
    live = LiveHook(display=wants_live_display() and runner.rank == 0)
    runner.register_hook(live, priority="LOWEST")
    return runner


def live_hook(runner: Any) -> LiveHook:
    """The hook that `build_runner` registered."""
    found = next(hook for hook in runner.hooks if isinstance(hook, LiveHook))
    assert isinstance(found, LiveHook)
    return found


# ------------------------------------------------------------------------------ commands
def run_train(options: argparse.Namespace) -> int:
    """Train, and on request test the best checkpoint and draw the curves."""
    cfg = load_config(options)
    if options.amp:
        use_amp(cfg)
    if options.auto_scale_lr:
        use_auto_scale_lr(cfg)
    if options.resume is not None:
        cfg.resume = True
        cfg.load_from = None if options.resume == "auto" else options.resume
    runner = build_runner(cfg)
    if options.test and cfg.get("test_dataloader") is None:
        raise UsageError("--test needs test_dataloader, test_cfg and test_evaluator in the config")
    try:
        run_stage(runner, "train")
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(how_to_resume(options, runner)) from interrupt
    metrics = {}
    if options.test:
        load_best(runner)
        metrics = run_stage(runner, "test")
    if runner.rank != 0:
        return 0
    print(f"work folder: {runner.work_dir}")
    if options.plot:
        print(f"curves: {plot.draw_curves(Path(runner.work_dir))}")
    print_metrics(metrics)
    return 0


def run_test(options: argparse.Namespace) -> int:
    """Test one checkpoint and print its metrics."""
    cfg = load_config(options)
    cfg.load_from = options.checkpoint
    cfg.resume = False
    if cfg.get("test_dataloader") is None:
        raise UsageError("the config has no test_dataloader, test_cfg and test_evaluator")
    runner = build_runner(cfg)
    metrics = run_stage(runner, "test")
    if runner.rank == 0:
        print_metrics(metrics)
    return 0


def run_stage(runner: Any, stage: str) -> Any:
    """Call `runner.train()` or `runner.test()`.

    What fails before the first batch arrives is the config's fault and becomes a `UsageError`;
    what fails later keeps its traceback.
    """
    live = live_hook(runner)
    live.started = False
    try:
        return getattr(runner, stage)()
    except INPUT_ERRORS as error:
        if live.started:
            raise
        raise UsageError(f"cannot {stage}: {describe(error)}") from error
    finally:
        live.close()


def load_best(runner: Any) -> None:
    """Load the checkpoint that `save_best` kept; without one, keep the weights as they are."""
    best = runner.message_hub.get_info("best_ckpt")
    if best is not None and Path(best).is_file():
        runner.load_checkpoint(best)


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print each metric of the test split on a line of its own."""
    for name, value in metrics.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"test {name}: {shown}")


def how_to_resume(options: argparse.Namespace, runner: Any) -> str:
    """What to tell after Ctrl-C: how far it went, what was saved, and how to continue."""
    where = f"interrupted in epoch {runner.epoch + 1}, after {runner.iter} iterations"
    saved = read_pointer(runner.work_dir)
    if saved is None:
        return f"{where}; no checkpoint was saved yet"
    command = ["fasttrain", "train", options.config, "--work-dir", str(runner.work_dir)]
    if options.amp:
        command.append("--amp")
    if options.launcher != "none":
        command += ["--launcher", options.launcher]
    return (
        f"{where}; the newest checkpoint is {saved}\n"
        f"continue with: {shlex.join([*command, '--resume'])}"
    )
