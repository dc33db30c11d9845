"""A GPU-accelerated training core for PyTorch behind mmengine's Runner API."""

from fasttrain.version import __version__

__all__ = ["__version__"]
