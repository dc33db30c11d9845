"""Where config files are, and reading them."""

from __future__ import annotations

import os.path as osp
import posixpath
from pathlib import Path

from fasttrain.utils.package_utils import get_installed_path


def is_remote(path: str) -> bool:
    """Whether `path` is a URL for fsspec rather than a file of this machine."""
    return "://" in path


def find_in_package(package: str, relative: str) -> str:
    """The path of a config file that an installed package, such as `"mmdet"`, ships.

    Raises:
        ModuleNotFoundError: the package is not installed.
        FileNotFoundError: the package does not ship the file.
    """
    return find_below(get_installed_path(package), relative)


def find_below(package_path: str, relative: str) -> str:
    """The path of a config file below a package's folder of configs."""
    tried = [osp.join(package_path, *f, relative) for f in ((".mim", "configs"), ("configs",))]
    for path in tried:
        if osp.isfile(path):
            return path
    raise FileNotFoundError(f"the config {relative!r} is neither {tried[0]} nor {tried[1]}")


def resolve_base(base: str, filename: str) -> tuple[str, str | None]:
    """Return the path of a base config, and its scope when it belongs to another package.

    Args:
        base: as written in `_base_`: a path relative to the config's folder, an absolute path, a
            URL, or `"package::path"`.
        filename: the config that names the base.
    """
    if "::" in base:
        package, _, relative = base.partition("::")
        return find_in_package(package, relative), package
    if osp.isabs(base) or is_remote(base):
        return base, None
    if is_remote(filename):
        protocol, _, path = filename.partition("://")
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), base))
        return f"{protocol}://{joined}", None
    return osp.join(osp.dirname(filename), base), None


def read_text(path: str | Path) -> str:
    """The text of a local file, or of a remote one through fsspec."""
    if not is_remote(str(path)):
        return Path(path).read_text(encoding="utf-8")
    import fsspec

    with fsspec.open(str(path), "r", encoding="utf-8") as file:
        return str(file.read())
