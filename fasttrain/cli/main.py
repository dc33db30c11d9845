"""Parse the command line, run one command, and turn what went wrong into a message."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

from fasttrain.cli import checkpoints, doctor, plot, training
from fasttrain.cli.errors import UsageError
from fasttrain.core import dist
from fasttrain.version import __version__

INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended
WIDTH = 100


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each command's module adds its own part."""
    parser = argparse.ArgumentParser(
        prog="fasttrain", description="Train, test and look at PyTorch models from config files."
    )
    parser.add_argument("--version", action="version", version=f"fasttrain {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", help="show the traceback of an error, not its text alone"
    )
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for module in (training, plot, doctor, checkpoints):
        module.add_commands(commands, common)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status of the process.

    Returns:
        0 when all went well, 1 on an error, 2 on bad usage, 130 after Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt as interrupt:
        print(f"\n{interrupt}" if str(interrupt) else "\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        if options.debug:
            raise
        print(one_paragraph(error), file=sys.stderr)
        return 1
    dist.leave()
    return status


def one_paragraph(error: UsageError) -> str:
    """The error's text, wrapped, with a hint at `--debug` when it stands for another error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if error.__cause__ is not None:
        lines.append("(--debug shows the traceback.)")
    return textwrap.fill(
        f"error: {' '.join(lines)}", WIDTH, break_long_words=False, break_on_hyphens=False
    )
