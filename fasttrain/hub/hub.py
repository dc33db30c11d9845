"""Loading a config of an installed package, and building its model."""

from __future__ import annotations

from typing import Any

from torch import nn

from fasttrain.config import Config
from fasttrain.config.model_index import indexed_config, model_info, split_package_path
from fasttrain.config.places import find_below
from fasttrain.registry import MODELS, DefaultScope
from fasttrain.runner.checkpoint import load_checkpoint
from fasttrain.utils.package_utils import get_installed_path


def get_config(cfg_path: str, pretrained: bool = False) -> Config:
    """Load a config of an installed package.

    Args:
        cfg_path: `"package::relative/config.py"`; the extension may be left out.
        pretrained: add the place of the trained weights, as the package's index names it, as
            `model_path`.
    Raises:
        ValueError: `cfg_path` is of another form.
        ModuleNotFoundError: the package is not installed.
        AssertionError: weights are asked for, and the package names none.
    """
    package, relative = split_package_path(cfg_path)
    relative = f"{relative.removesuffix('.py')}.py"
    folder = get_installed_path(package)
    try:
        info = model_info(folder, relative)
    except (ValueError, FileNotFoundError):  # no model, but a base config
        assert not pretrained, f"the index of {package} has no weights for {relative}"
        return Config.fromfile(find_below(folder, relative))
    cfg = Config.fromfile(indexed_config(folder, relative))
    if pretrained:
        assert "Weights" in info, (
            f"Cannot find `Weights` in the index of {package} for {relative}, please set "
            "pretrained=False"
        )
        cfg.model_path = info["Weights"]
    return cfg


def get_model(cfg_path: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build the model of a config that an installed package ships.

    Args:
        cfg_path: `"package::relative/config.py"`.
        pretrained: load the trained weights.
        kwargs: default arguments of the model.
    """
    package, _ = split_package_path(cfg_path)
    with DefaultScope.overwrite_default_scope(package):
        cfg = get_config(cfg_path, pretrained)
        model_cfg = cfg.model.copy()
        if "data_preprocessor" in cfg:
            model_cfg["data_preprocessor"] = cfg.data_preprocessor
        model: nn.Module = MODELS.build(model_cfg, default_args=kwargs)
        if pretrained:
            load_checkpoint(model, cfg.model_path)
    return model
