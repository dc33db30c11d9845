"""Reserved words of the config language, and the error of who breaks its rules."""

from __future__ import annotations

BASE_KEY = "_base_"
DELETE_KEY = "_delete_"
DEPRECATION_KEY = "_deprecation_"
RESERVED_KEYS = ["filename", "text", "pretty_text", "env_variables"]

# Modules that stand for the config language itself, and what may be imported from them without
# making a config a lazy one.
CONFIG_MODULES = ("mmengine", "mmengine.config", "fasttrain", "fasttrain.config")
CONFIG_NAMES = {"read_base", "Config", "ConfigDict", "DictAction"}


class ConfigParsingError(RuntimeError):
    """A config file breaks a rule of the config language."""
