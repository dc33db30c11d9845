"""A GPU-accelerated training core for PyTorch behind mmengine's Runner API."""

import importlib
import importlib.util
from typing import Any

from fasttrain.version import __version__

__all__ = ["__version__"]

# Whose public names the package itself offers, too: `fasttrain.Config`, `fasttrain.print_log`, ...
_ROOMS = ("config", "registry", "logging", "utils")


def __getattr__(name: str) -> Any:
    """Look a public name of the rooms up when it is first asked for."""
    is_submodule = importlib.util.find_spec(f"{__name__}.{name}") is not None
    if not (name.startswith("_") or is_submodule):
        for room in _ROOMS:
            module = importlib.import_module(f"{__name__}.{room}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
