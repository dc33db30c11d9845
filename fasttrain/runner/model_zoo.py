"""Names of published models and where their weights are: torchvision's and OpenMMLab's."""

from __future__ import annotations

import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import fasttrain

ENV_MMENGINE_HOME = "MMENGINE_HOME"
ENV_XDG_CACHE_HOME = "XDG_CACHE_HOME"
DEFAULT_CACHE_DIR = "~/.cache"


def _get_mmengine_home() -> str:
    """The folder of the user's own model lists and downloads; made when missing."""
    cache = os.getenv(ENV_XDG_CACHE_HOME, DEFAULT_CACHE_DIR)
    home = os.path.expanduser(os.getenv(ENV_MMENGINE_HOME, os.path.join(cache, "mmengine")))
    os.makedirs(home, exist_ok=True)
    return home


def get_external_models() -> dict[str, str]:
    """`open-mmlab://` names and their URLs; `open_mmlab.json` in the home folder adds to them."""
    models = _read_list("openmmlab")
    own = Path(_get_mmengine_home()) / "open_mmlab.json"
    if own.is_file():
        models.update(_read_json(own))
    return models


def get_mmcls_models() -> dict[str, str]:
    """`mmcls://` names and their URLs."""
    return _read_list("mmcls")


def get_deprecated_model_names() -> dict[str, str]:
    """Old `open-mmlab://` names and the names that replaced them."""
    return _read_list("deprecated")


def get_torchvision_models() -> dict[str, str]:
    """`torchvision://` names and their URLs.

    `resnet50` names the first weights published under it, `resnet50.imagenet1k_v2` certain ones.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            "names with torchvision:// need torchvision; install it, or give a path or URL"
        ) from error
    urls: dict[str, str] = OrderedDict()
    for name in models.list_models(module=models):
        weights: list[Any] = sorted(models.get_model_weights(name), key=lambda entry: entry.name)
        for entry in weights:
            urls[f"{name}.{entry.name.lower()}"] = entry.url
        if weights:
            urls[name] = weights[0].url
    return urls


def _read_list(name: str) -> dict[str, str]:
    """A list shipped with the package that answers to the name mmengine, else with fasttrain."""
    for package in (sys.modules.get("mmengine"), fasttrain):
        for folder in getattr(package, "__path__", []):
            path = Path(folder) / "hub" / f"{name}.json"
            if path.is_file():
                return _read_json(path)
    raise FileNotFoundError(f"hub/{name}.json is missing from the installed package")


def _read_json(path: Path) -> dict[str, str]:
    loaded = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise ValueError(f"expected a JSON object of names and URLs in {path}, got {loaded!r:.60}")
    return loaded
