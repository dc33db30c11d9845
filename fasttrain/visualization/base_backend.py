"""The interface of writers, which set up their store on first use."""

from __future__ import annotations

import functools
import importlib
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Scalar = int | float | Tensor | np.ndarray


def force_init_env(old_func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a method of a writer to call `_init_env` before its first use."""

    @functools.wraps(old_func)
    def wrapper(obj: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(obj, "_env_initialized", False):
            obj._env_initialized = True
            obj._init_env()
        return old_func(obj, *args, **kwargs)

    return wrapper


def require(module: str, install: str | None = None) -> Any:
    """Import an optional package.

    Raises:
        ImportError: it is missing; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        name = install or module
        raise ImportError(f'Please run "pip install {name}" to install {name}') from e


def to_number(value: Any) -> Any:
    """A tensor or array of one element, or a numpy number, as a Python number; else `value`."""
    if isinstance(value, Tensor):
        value = value.detach()
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.item()
    return value


def is_number(value: Any) -> bool:
    """Whether writers of curves can take `value`."""
    if isinstance(value, Tensor):
        return value.numel() == 1
    if isinstance(value, np.ndarray):
        return value.size == 1
    return isinstance(value, int | float | np.number)


def check_scalars(scalar_dict: Any) -> None:
    """Refuse what is no dict, or holds the step."""
    assert isinstance(scalar_dict, dict), f"scalars must be a dict, got {type(scalar_dict)}"
    assert "step" not in scalar_dict, "Please set it directly through the step parameter"


class BaseVisBackend(metaclass=ABCMeta):
    """A writer: takes configs, model graphs, images and scalars, and keeps them somewhere.

    Args:
        save_dir: the folder for what it writes.
    """

    def __init__(self, save_dir: str) -> None:
        self._save_dir = save_dir
        self._env_initialized = False

    @property
    @abstractmethod
    def experiment(self) -> Any:
        """The object behind the writer, for what its own methods do not offer."""

    @abstractmethod
    def _init_env(self) -> Any:
        """Set up what `experiment` returns."""

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Record the config of the run."""

    def add_graph(self, model: nn.Module, data_batch: Sequence[dict], **kwargs: Any) -> None:
        """Record the model."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image of shape [height, width, 3], RGB, uint8."""

    def add_scalar(self, name: str, value: Scalar, step: int = 0, **kwargs: Any) -> None:
        """Record one scalar."""

    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record many scalars."""

    def close(self) -> None:
        """Finish writing."""


def image_array(image: Any) -> np.ndarray:
    """An image for a writer.

    Raises:
        AssertionError: it is not uint8.
    """
    array = image.cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    assert array.dtype == np.uint8, f"an image must be uint8, got {array.dtype}"
    return array
