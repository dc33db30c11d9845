"""`fasttrain verify PATH...` and `fasttrain export CHECKPOINT OUT`."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fasttrain.cli.errors import UsageError, user_input
from fasttrain.core import checkpoint
from fasttrain.runner.checkpoint import read_checkpoint

WEIGHTS = ("state_dict", "model")  # where checkpoints of this and other projects keep them
# A run with an EMA saves its averaged weights as the weights, and the trained ones here.
TRAINED = "ema_state_dict"


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `verify` and `export` to the command line."""
    verify = commands.add_parser(
        "verify", parents=[common], help="check that checkpoint files are whole"
    )
    verify.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a checkpoint, or a folder of them"
    )
    verify.set_defaults(run=run_verify)
    export = commands.add_parser(
        "export", parents=[common], help="write a checkpoint's bare weights to a file"
    )
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    export.add_argument("out", type=Path, metavar="OUT", help="a .safetensors, .pth or .pt file")
    export.add_argument(
        "--trained",
        action="store_true",
        help="of a run with an EMA: the trained weights instead of the averaged ones",
    )
    export.set_defaults(run=run_export)


def run_verify(options: argparse.Namespace) -> int:
    """Check each file; status 1 when one is damaged or there is nothing to check."""
    num_damaged = 0
    for path in find_files(options.paths):
        found = checkpoint.damage(path)
        print(f"{path}: {'ok' if found is None else f'DAMAGED: {found}'}")
        num_damaged += found is not None
    return 1 if num_damaged else 0


def find_files(paths: list[Path]) -> Iterator[Path]:
    """The files named, and the checkpoints in the folders named.

    Raises:
        UsageError: a path does not exist, or a folder holds no checkpoint.
    """
    for path in paths:
        if path.is_dir():
            files = sorted(checkpoint.checkpoint_files(path))
            if not files:
                raise UsageError(f"no checkpoints (*.pth) in the folder {path}")
            yield from files
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"no such checkpoint: {path}")


def run_export(options: argparse.Namespace) -> int:
    """Write the weights of a checkpoint as bare weights."""
    with user_input(f"cannot read {options.checkpoint}"):
        try:
            content = read_checkpoint(options.checkpoint, "cpu")
        except pickle.UnpicklingError as error:
            raise UsageError(f"{options.checkpoint} is not safe to open: {error}") from error
    weights = find_weights(content, trained=options.trained)
    out: Path = options.out
    with user_input(f"cannot write {out}"):
        if out.suffix == ".safetensors":
            save_safetensors(weights, out)
        elif out.suffix in (".pth", ".pt"):
            checkpoint.save(weights, out)
        else:
            raise ValueError(f"expected a .safetensors, .pth or .pt file, got {out.name!r}")
    num_values = sum(tensor.numel() for tensor in weights.values())
    print(f"{out}: {len(weights)} tensors, {num_values:,} values")
    return 0


def find_weights(content: Any, *, trained: bool = False) -> dict[str, Tensor]:
    """The weights inside a loaded checkpoint, names without a wrapper's `module.`.

    Raises:
        UsageError: the checkpoint holds no weights, or no trained ones beside averaged ones.
    """
    keys = (TRAINED,) if trained else WEIGHTS
    if not isinstance(content, Mapping):
        raise UsageError(f"expected a checkpoint that is a dict, got {type(content).__name__}")
    found: Any = next((content[key] for key in keys if key in content), None)
    if found is None and not trained:
        found = content  # a file of bare weights
    weights = {
        str(name).removeprefix("module."): value.detach()
        for name, value in (found or {}).items()
        if isinstance(value, Tensor)
    }
    if trained:
        weights.pop("steps", None)  # the counter of the averaged model
    if not weights:
        wanted = f"'{TRAINED}'" if trained else " or ".join(map(repr, WEIGHTS))
        raise UsageError(
            f"the checkpoint holds no weights: looked for {wanted}, found the keys "
            f"{sorted(map(str, content))}"
        )
    return weights


def save_safetensors(weights: dict[str, Tensor], out: Path) -> None:
    """Write a safetensors file whole or not at all; tensors that share memory are copied."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UsageError(
            "export to .safetensors needs safetensors: pip install safetensors"
        ) from error
    data = save({name: tensor.contiguous().clone() for name, tensor in weights.items()})
    with checkpoint.replace_durably(out) as descriptor, open(descriptor, "wb", closefd=False) as f:
        f.write(data)
