"""Which packages are installed, and where."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os.path as osp
import subprocess
import sys

# Import name, which is also the registry scope, of the OpenMMLab projects -> what to install.
_OF_ONE_NAME = (
    "mmcls mmcv mmdeploy mmdet mmdet3d mmedit mmfewshot mmflow mmgen mmhuman3d mmagic mmocr mmpose "
    "mmpretrain mmrazor mmrotate mmselfsup mmtrack mmyolo"
)
PROJECTS = {name: name for name in _OF_ONE_NAME.split()}
PROJECTS |= {"mmaction": "mmaction2", "mmseg": "mmsegmentation"}


def is_installed(package: str) -> bool:
    """Whether a package can be imported, or is installed under that name."""
    try:
        if importlib.util.find_spec(package) is not None:
            return True
    except (ImportError, ValueError):
        pass
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def get_installed_path(package: str) -> str:
    """The folder of an installed package, found without importing it.

    Args:
        package: name to import or to install by.
    Raises:
        ModuleNotFoundError: there is no such package, or it is a namespace without a folder.
    """
    for name in [package, *_import_names(package)]:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.origin is not None:
            return osp.dirname(osp.abspath(spec.origin))
    raise ModuleNotFoundError(
        f"Package {package} is not installed, or is a namespace package without a folder of its "
        "own; install it, or give the name of a package in it"
    )


def _import_names(distribution: str) -> list[str]:
    """The top-level packages that a distribution, such as mmsegmentation, installs."""
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return []
    names = (found.read_text("top_level.txt") or "").split()
    if not names:
        files = found.files or []
        names = [file.parts[0] for file in files if file.name == "__init__.py" and file.parent.name]
    return sorted(dict.fromkeys(names), key=lambda name: name.startswith("_"))  # private ones last


def package2module(package: str) -> str:
    """The first top-level name that an installed package, such as PyYAML, is imported by.

    Raises:
        ValueError: it installs none.
    """
    names = _import_names(package)
    if not names:
        raise ValueError(f"can not infer the module name of {package}")
    return names[0]


def install_package(package: str) -> None:
    """Install a package by pip, unless it is there."""
    if not is_installed(package):
        call_command([sys.executable, "-m", "pip", "install", package])


def call_command(cmd: list[str]) -> None:
    """Run a program; an exit status other than zero raises `subprocess.CalledProcessError`."""
    subprocess.check_call(cmd)
