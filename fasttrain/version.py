"""The package's version, here and in pyproject.toml alone, and the mmengine release it follows."""

__version__ = "0.1.0"

# What parts that ask for mmengine's version are told.
MMENGINE_VERSION = "0.10.7"
