"""Modules that know how their weights are initialized."""

from __future__ import annotations

import copy
import logging
from abc import ABCMeta
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from fasttrain.dist import master_only
from fasttrain.logging import MMLogger, print_log
from fasttrain.model.weight_init import PretrainedInit, initialize, update_init_info
from fasttrain.model.wrappers.utils import is_model_wrapper


class BaseModule(nn.Module, metaclass=ABCMeta):
    """An nn.Module with `init_weights()`, driven by `init_cfg`.

    Args:
        init_cfg: config or configs of initializers, see `fasttrain.model.weight_init`.
    """

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__()
        self._is_init = False
        self.init_cfg = copy.deepcopy(init_cfg)

    @property
    def is_init(self) -> bool:
        """Whether `init_weights` has run."""
        return self._is_init

    @is_init.setter
    def is_init(self, value: bool) -> None:
        self._is_init = value

    def init_weights(self) -> None:
        """Initialize: own configs, then the children's `init_weights`, then pretrained weights.

        The outermost call also logs, for every parameter, what initialized it.
        """
        if hasattr(self, "_params_init_info"):
            self._init_once()
            return
        with self._recorded_init():
            self._init_once()
            self._dump_init_info()

    def _init_once(self) -> None:
        name = type(self).__name__
        if self._is_init:
            print_log(
                f"init_weights of {name} has been called more than once.",
                logger="current",
                level=logging.WARNING,
            )
            return
        if self.init_cfg:
            print_log(
                f"initialize {name} with init_cfg {self.init_cfg}",
                logger="current",
                level=logging.DEBUG,
            )
        configs = _configs_of(self.init_cfg)
        pretrained = [config for config in configs if _is_pretrained(config)]
        others = [config for config in configs if not _is_pretrained(config)]
        if others:
            initialize(self, others)
        for child in self.children():
            _init_child(child)
        if pretrained:
            initialize(self, pretrained)
        self._is_init = True

    @contextmanager
    def _recorded_init(self) -> Iterator[None]:
        """Share one record of what initialized which parameter among all submodules."""
        record: defaultdict[nn.Parameter, dict[str, Any]] = defaultdict(dict)
        for param in self.parameters():
            record[param] = {
                "init_info": "The value is the same before and after calling `init_weights` of "
                f"{type(self).__name__} ",
                "tmp_mean_value": param.data.mean().cpu(),
            }
        modules = list(self.modules())
        for module in modules:
            module._params_init_info = record  # type: ignore[assignment]
        try:
            yield
        finally:
            for module in {*modules, *self.modules()}:
                module.__dict__.pop("_params_init_info", None)

    @master_only
    def _dump_init_info(self) -> None:
        """Write what initialized each parameter to the log files, or to the log without one."""
        record: Any = self._params_init_info
        lines = [
            f"\n{name} - {param.shape}: \n{record[param]['init_info']} \n"
            for name, param in self.named_parameters()
        ]
        logger = MMLogger.get_current_instance()
        files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        if not files:
            for line in lines:
                print_log(f"{line} ", logger="current")
        for handler in files:
            if handler.stream is None:  # a delayed file
                handler.stream = handler._open()
            handler.stream.write("Name of parameter - Initialization information\n")
            handler.stream.writelines(lines)
            handler.stream.flush()

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text}\ninit_cfg={self.init_cfg}" if self.init_cfg else text


def _configs_of(init_cfg: Any) -> list[dict]:
    """The initializers' configs in a list; none where the config is empty."""
    if not init_cfg:
        return []
    assert isinstance(init_cfg, dict | list | tuple), (
        f"init_cfg should be a dict or a list of dict, but got {type(init_cfg)}"
    )
    return [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg)


def _is_pretrained(config: dict) -> bool:
    return config["type"] in ("Pretrained", PretrainedInit)


def _init_child(child: nn.Module) -> None:
    if is_model_wrapper(child) and not hasattr(child, "init_weights"):
        child = child.module  # type: ignore[assignment]
    if hasattr(child, "init_weights") and not getattr(child, "is_init", False):
        child.init_weights()  # type: ignore[operator]
        update_init_info(
            child,
            init_info=f"Initialized by user-defined `init_weights` in {type(child).__name__} ",
        )


class Sequential(BaseModule, nn.Sequential):
    """nn.Sequential with `init_weights()`."""

    def __init__(self, *args: Any, init_cfg: dict | list[dict] | None = None) -> None:
        BaseModule.__init__(self, init_cfg)
        nn.Sequential.__init__(self, *args)


class ModuleList(BaseModule, nn.ModuleList):
    """nn.ModuleList with `init_weights()`."""

    def __init__(
        self, modules: Iterable[nn.Module] | None = None, init_cfg: dict | list[dict] | None = None
    ) -> None:
        BaseModule.__init__(self, init_cfg)
        nn.ModuleList.__init__(self, modules)


class ModuleDict(BaseModule, nn.ModuleDict):
    """nn.ModuleDict with `init_weights()`."""

    def __init__(
        self, modules: dict | None = None, init_cfg: dict | list[dict] | None = None
    ) -> None:
        BaseModule.__init__(self, init_cfg)
        nn.ModuleDict.__init__(self, modules)
