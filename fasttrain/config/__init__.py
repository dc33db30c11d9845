"""Config files: Python, YAML or JSON, with inheritance."""

from .config import Config, ConfigDict, DictAction, read_base

__all__ = ["Config", "ConfigDict", "DictAction", "read_base"]
