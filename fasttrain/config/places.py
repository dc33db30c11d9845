"""Where config files are, and reading them."""

from __future__ import annotations

import importlib.util
import os.path as osp
import posixpath
from pathlib import Path


def is_remote(path: str) -> bool:
    """Whether `path` is a URL for fsspec rather than a file of this machine."""
    return "://" in path


def package_folder(package: str) -> str:
    """The folder of an installed package, found without importing it.

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package {package!r}, which a config refers to, is not installed", name=package
        )
    return str(next(iter(spec.submodule_search_locations)))


def find_in_package(package: str, relative: str) -> str:
    """The path of a config file that an installed package ships.

    Args:
        package: import name, such as `"mmdet"`.
        relative: path below the package's folder of configs.
    Raises:
        FileNotFoundError: the package does not ship the file.
    """
    folder = package_folder(package)
    tried = [osp.join(folder, *below, relative) for below in ((".mim", "configs"), ("configs",))]
    for path in tried:
        if osp.isfile(path):
            return path
    raise FileNotFoundError(
        f"the package {package!r} ships no config {relative!r}; looked for {' and '.join(tried)}"
    )


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
