"""What the index of a package's models says about a config that the package ships."""

from __future__ import annotations

import os.path as osp
from typing import Any

from . import serialize
from .places import read_text

_FOLDER = ".mim"  # where OpenMMLab packages keep their configs and their index


def split_package_path(cfg_path: str) -> tuple[str, str]:
    """Split `"package::relative/config.py"`.

    Raises:
        ValueError: of another form.
    """
    package, separator, path = cfg_path.partition("::")
    if not (package and separator and path) or "::" in path:
        raise ValueError(
            "please specify the package name and relative config path, just like "
            f"`mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py`; got {cfg_path!r}"
        )
    return package, path


def model_info(package_path: str, cfg_path: str) -> dict[str, Any]:
    """The entry of a model in its package's index: name, config, weights, ...

    Args:
        package_path: the package's folder.
        cfg_path: path of the model's config below the package's folder of configs.
    Raises:
        ValueError: the index has no such config.
    """
    folder = osp.join(package_path, _FOLDER)
    models: dict[str, dict[str, Any]] = {}
    for metafile in _read(osp.join(folder, "model-index.yml"))["Import"]:
        for model in _read(osp.join(folder, metafile)).get("Models", []):
            if "Config" in model:
                models[model["Config"].removeprefix("configs/")] = model
    if cfg_path not in models:
        raise ValueError(f"Expected configs: {list(models)}, but got {cfg_path}")
    return models[cfg_path]


def indexed_config(package_path: str, cfg_file: str) -> str:
    """The path of a config that the index has; its extension may be left out."""
    stem = cfg_file.removesuffix(".py")
    info = model_info(package_path, f"{stem}.py")
    return osp.join(package_path, _FOLDER, info["Config"])


def _read(path: str) -> dict[str, Any]:
    values: dict[str, Any] = serialize.parse(read_text(path), ".yaml", path)
    return values
