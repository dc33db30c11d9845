"""The package's version, the one place where it is written besides pyproject.toml."""

__version__ = "0.1.0"
