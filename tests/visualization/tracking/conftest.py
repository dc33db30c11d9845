"""Stand-ins for the packages of the services."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from fasttrain.config import Config


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a stand-in for a package where it is imported from."""

    def put(name: str) -> MagicMock:
        module = MagicMock(name=name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A config whose work folder holds one file of each kind."""
    for name in ("a.json", "b.py", "c.pth", "d.txt"):
        (tmp_path / "work").mkdir(exist_ok=True)
        (tmp_path / "work" / name).write_text(name)
    return Config({"work_dir": str(tmp_path / "work"), "model": {"depth": 3, "parts": [{"a": 1}]}})
