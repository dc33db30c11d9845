"""Which packages are installed, and where."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fasttrain.utils import (
    call_command,
    get_installed_path,
    install_package,
    is_installed,
    package_utils,
)
from fasttrain.utils.package_utils import package2module


def test_is_installed():
    assert is_installed("torch") and is_installed("json")
    assert is_installed("PyYAML")  # by the name it is installed by
    assert not is_installed("not_a_package") and not is_installed("not_a.package")


def test_get_installed_path(tmp_path, monkeypatch):
    assert get_installed_path("torch") == str(Path(torch.__file__).parent)
    assert Path(get_installed_path("PyYAML")).name == "yaml"
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("not_a_package", "only_a_folder"):
        with pytest.raises(ModuleNotFoundError, match=f"Package {name} is not installed, or is a"):
            get_installed_path(name)


def test_package2module():
    assert package2module("PyYAML") == "yaml" and package2module("numpy") == "numpy"
    with pytest.raises(ValueError, match="can not infer the module name of not_a_package"):
        package2module("not_a_package")


def test_install_package(monkeypatch):
    commands = []
    monkeypatch.setattr(package_utils, "call_command", commands.append)
    install_package("torch")
    install_package("not_a_package")
    assert commands == [[sys.executable, "-m", "pip", "install", "not_a_package"]]


def test_call_command():
    call_command([sys.executable, "-c", "pass"])
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status 3"):
        call_command([sys.executable, "-c", "raise SystemExit(3)"])
