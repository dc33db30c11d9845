"""The command line `fasttrain`: one module per command, `main` puts them together."""

from fasttrain.cli.main import main

__all__ = ["main"]
