"""Writers on this machine: JSON lines and images in a folder, and TensorBoard."""

from __future__ import annotations

import json
import os
import warnings
import weakref
from typing import Any

import numpy as np
from torch import nn

from fasttrain.config import Config
from fasttrain.registry import VISBACKENDS
from fasttrain.visualization.base_backend import (
    BaseVisBackend,
    Scalar,
    check_scalars,
    force_init_env,
    image_array,
    is_number,
    require,
    to_number,
)
from fasttrain.visualization.tracking import (
    AimVisBackend,
    ClearMLVisBackend,
    DVCLiveVisBackend,
    MLflowVisBackend,
    NeptuneVisBackend,
    WandbVisBackend,
)

__all__ = [
    "AimVisBackend",
    "BaseVisBackend",
    "ClearMLVisBackend",
    "DVCLiveVisBackend",
    "LocalVisBackend",
    "MLflowVisBackend",
    "NeptuneVisBackend",
    "TensorboardVisBackend",
    "WandbVisBackend",
    "force_init_env",
]


@VISBACKENDS.register_module()
class LocalVisBackend(BaseVisBackend):
    """Writes the config, images and scalars (one JSON object a line) into a folder.

    Args:
        save_dir: the folder.
        img_save_dir: the folder in it for images.
        config_save_file: the file in it for the config.
        scalar_save_file: the file in it for the scalars.
    """

    def __init__(
        self,
        save_dir: str,
        img_save_dir: str = "vis_image",
        config_save_file: str = "config.py",
        scalar_save_file: str = "scalars.json",
    ) -> None:
        for name, file, ending in (
            ("config_save_file", config_save_file, "py"),
            ("scalar_save_file", scalar_save_file, "json"),
        ):
            assert file.split(".")[-1] == ending, f"{name} must end with .{ending}, got {file}"
        super().__init__(save_dir)
        self._img_save_dir = img_save_dir
        self._config_save_file = config_save_file
        self._scalar_save_file = scalar_save_file
        self._files: dict[str, int] = {}  # path -> descriptor
        weakref.finalize(self, _close, self._files)

    def _init_env(self) -> None:
        os.makedirs(self._save_dir, exist_ok=True)
        self._img_save_dir = os.path.join(self._save_dir, self._img_save_dir)
        self._config_save_file = os.path.join(self._save_dir, self._config_save_file)
        self._scalar_save_file = os.path.join(self._save_dir, self._scalar_save_file)

    @property
    @force_init_env
    def experiment(self) -> LocalVisBackend:
        """The writer itself."""
        return self

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Write the config as Python."""
        assert isinstance(config, Config), f"config must be a Config, got {type(config)}"
        config.dump(self._config_save_file)

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Write `<name>_<step>.png`."""
        pixels = image_array(image)
        path = os.path.join(self._img_save_dir, f"{name}_{step}.png")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        require("matplotlib.image", "matplotlib").imsave(path, pixels)

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Write one scalar and its step."""
        self._append(_json_line({name: value, "step": step}), self._scalar_save_file)

    @force_init_env
    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Write scalars and their step into the scalar file, and into `file_path` as well."""
        assert isinstance(scalar_dict, dict), f"scalars must be a dict, got {type(scalar_dict)}"
        line = _json_line({**scalar_dict, "step": scalar_dict.get("step", step)})
        if file_path is not None:
            assert file_path.split(".")[-1] == "json", (
                f"file_path must end with .json, got {file_path}"
            )
            path = os.path.join(self._save_dir, file_path)
            assert path != self._scalar_save_file, (
                "``file_path`` and ``scalar_save_file`` have the same name, "
                "please set ``file_path`` to another value"
            )
            self._append(line, path)
        self._append(line, self._scalar_save_file)

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        """Append scalars as one line."""
        assert file_format == "json", f"only json is written, got {file_format}"
        self._append(_json_line(value_dict), file_path)

    def _append(self, line: bytes, path: str) -> None:
        """Append a line to a file that stays open; it is on disk for readers at once."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(file, line)

    def close(self) -> None:
        """Close the files; writing on opens them again."""
        _close(self._files)


def _close(files: dict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def _json_line(scalars: dict) -> bytes:
    return (_ENCODER.encode(scalars) + "\n").encode()


def _plain(value: Any) -> Any:
    """What `json` does not know, as what it knows."""
    if hasattr(value, "tolist"):
        return to_number(value) if is_number(value) else value.tolist()
    raise TypeError(f"{type(value)} cannot be written as JSON: {value!r}")


_ENCODER = json.JSONEncoder(default=_plain)


@VISBACKENDS.register_module()
class TensorboardVisBackend(BaseVisBackend):
    """Writes event files for TensorBoard."""

    def _init_env(self) -> None:
        os.makedirs(self._save_dir, exist_ok=True)
        self._tensorboard = require("torch.utils.tensorboard", "tensorboard").SummaryWriter(
            self._save_dir
        )

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The `SummaryWriter`."""
        return self._tensorboard

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Write the config as text."""
        self._tensorboard.add_text("config", config.pretty_text)

    @force_init_env
    def add_graph(self, model: nn.Module, data_batch: Any, **kwargs: Any) -> None:
        """Models are not traced: their `forward` takes more than tensors."""

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Write an image."""
        self._tensorboard.add_image(name, image, step, dataformats="HWC")

    @force_init_env
    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Write one scalar; anything else is skipped with a warning."""
        if is_number(value):
            self._tensorboard.add_scalar(name, to_number(value), step)
        else:
            warnings.warn(
                f"Got {type(value)}, but numpy array, torch tensor of one element, int or float "
                f"are expected. skip it! ({name})",
                stacklevel=2,
            )

    @force_init_env
    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Write many scalars."""
        check_scalars(scalar_dict)
        for name, value in scalar_dict.items():
            self.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is left."""
        if hasattr(self, "_tensorboard"):
            self._tensorboard.close()
