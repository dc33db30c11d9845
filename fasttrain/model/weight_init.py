"""Configurable initializers that choose modules by name, and the record of what they did."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from fasttrain.logging import print_log
from fasttrain.model.init_functions import (
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    kaiming_init,
    normal_init,
    trunc_normal_,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)
from fasttrain.registry import WEIGHT_INITIALIZERS, build_from_cfg

__all__ = [
    "BaseInit",
    "Caffe2XavierInit",
    "ConstantInit",
    "KaimingInit",
    "NormalInit",
    "PretrainedInit",
    "TruncNormalInit",
    "UniformInit",
    "XavierInit",
    "bias_init_with_prob",
    "caffe2_xavier_init",
    "constant_init",
    "initialize",
    "kaiming_init",
    "normal_init",
    "trunc_normal_",
    "trunc_normal_init",
    "uniform_init",
    "update_init_info",
    "xavier_init",
]


def update_init_info(module: nn.Module, init_info: str) -> None:
    """Note `init_info` for the parameters of `module` that changed since the last note.

    Raises:
        AssertionError: no initialization is under way, or a parameter appeared during it.
    """
    assert hasattr(module, "_params_init_info"), f"Can not find `_params_init_info` in {module}"
    record: Any = module._params_init_info
    for name, param in module.named_parameters():
        assert param in record, (
            f"Find a new :obj:`Parameter` named `{name}` during executing the `init_weights` of "
            f"`{type(module).__name__}`. Please do not add or replace parameters during executing "
            "the `init_weights`. "
        )
        mean = param.data.mean().cpu()
        if record[param]["tmp_mean_value"] != mean:
            record[param].update(init_info=init_info, tmp_mean_value=mean)


class BaseInit:
    """Initialize the modules whose class, or a direct base of it, is named in `layer`.

    Args:
        bias: what the bias is filled with.
        bias_prob: instead, the probability that a sigmoid gives for that bias.
        layer: class names; none chooses nothing, unless `wholemodule` is set.
    """

    _function: Callable[..., None]  # what subclasses run on a module,
    _settings: tuple[str, ...] = ()  # with these attributes as its arguments, and the bias

    def __init__(
        self,
        *,
        bias: float = 0,
        bias_prob: float | None = None,
        layer: str | list[str] | None = None,
    ) -> None:
        self.wholemodule = False
        if not isinstance(bias, int | float):
            raise TypeError(f"bias must be a number, but got a {type(bias)}")
        if bias_prob is not None and not isinstance(bias_prob, float):
            raise TypeError(f"bias_prob type must be float, but got {type(bias_prob)}")
        layer = [] if layer is None else layer
        if not isinstance(layer, str | list):
            raise TypeError(f"layer must be a str or a list of str, but got a {type(layer)}")
        self.bias = bias if bias_prob is None else bias_init_with_prob(bias_prob)
        self.layer = [layer] if isinstance(layer, str) else layer

    def __call__(self, module: nn.Module) -> None:
        """Initialize the chosen submodules of `module`, children first, and note it."""
        module.apply(self._init_chosen)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())

    def _init_chosen(self, module: nn.Module) -> None:
        kind = type(module)
        names = {kind.__name__, *(base.__name__ for base in kind.__bases__)}
        if not self.wholemodule and names.isdisjoint(self.layer):
            return
        settings = {name: getattr(self, name) for name in self._settings}
        self._function(module, bias=self.bias, **settings)

    def _get_init_info(self) -> str:
        told = [f"{name}={getattr(self, name)}" for name in (*self._settings, "bias")]
        return f"{type(self).__name__}{': ' if self._settings else ', '}{', '.join(told)}"


@WEIGHT_INITIALIZERS.register_module(name="Constant")
class ConstantInit(BaseInit):
    """See `constant_init`."""

    _function = staticmethod(constant_init)
    _settings = ("val",)

    def __init__(self, val: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val = val


@WEIGHT_INITIALIZERS.register_module(name="Xavier")
class XavierInit(BaseInit):
    """See `xavier_init`."""

    _function = staticmethod(xavier_init)
    _settings = ("gain", "distribution")

    def __init__(self, gain: float = 1, distribution: str = "normal", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gain = gain
        self.distribution = distribution


@WEIGHT_INITIALIZERS.register_module(name="Normal")
class NormalInit(BaseInit):
    """See `normal_init`."""

    _function = staticmethod(normal_init)
    _settings = ("mean", "std")

    def __init__(self, mean: float = 0, std: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean = mean
        self.std = std


@WEIGHT_INITIALIZERS.register_module(name="TruncNormal")
class TruncNormalInit(BaseInit):
    """See `trunc_normal_init`."""

    _function = staticmethod(trunc_normal_init)
    _settings = ("a", "b", "mean", "std")

    def __init__(
        self, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mean = mean
        self.std = std
        self.a = a
        self.b = b


@WEIGHT_INITIALIZERS.register_module(name="Uniform")
class UniformInit(BaseInit):
    """See `uniform_init`."""

    _function = staticmethod(uniform_init)
    _settings = ("a", "b")

    def __init__(self, a: float = 0, b: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a = a
        self.b = b


@WEIGHT_INITIALIZERS.register_module(name="Kaiming")
class KaimingInit(BaseInit):
    """See `kaiming_init`."""

    _function = staticmethod(kaiming_init)
    _settings = ("a", "mode", "nonlinearity", "distribution")

    def __init__(
        self,
        a: float = 0,
        mode: str = "fan_out",
        nonlinearity: str = "relu",
        distribution: str = "normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.a = a
        self.mode = mode
        self.nonlinearity = nonlinearity
        self.distribution = distribution


@WEIGHT_INITIALIZERS.register_module(name="Caffe2Xavier")
class Caffe2XavierInit(KaimingInit):
    """See `caffe2_xavier_init`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            a=1, mode="fan_in", nonlinearity="leaky_relu", distribution="uniform", **kwargs
        )


@WEIGHT_INITIALIZERS.register_module(name="Pretrained")
class PretrainedInit:
    """Load weights from a checkpoint.

    Args:
        checkpoint: path or URL.
        prefix: take only the part of the checkpoint below this name.
        map_location: where tensors are loaded to.
    """

    def __init__(
        self, checkpoint: str, prefix: str | None = None, map_location: Any = "cpu"
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        """Load into `module`, leniently, and note it."""
        # Only who asks for pretrained weights needs the runner's side of the face.
        from fasttrain.runner.checkpoint import (
            _load_checkpoint_with_prefix,
            load_checkpoint,
            load_state_dict,
        )

        if self.prefix is None:
            print_log(f"load model from: {self.checkpoint}", logger="current")
            load_checkpoint(
                module,
                self.checkpoint,
                map_location=self.map_location,
                strict=False,
                logger="current",
            )
        else:
            print_log(f"load {self.prefix} in model from: {self.checkpoint}", logger="current")
            state_dict = _load_checkpoint_with_prefix(
                self.prefix, self.checkpoint, map_location=self.map_location
            )
            load_state_dict(module, state_dict, strict=False, logger="current")
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())

    def _get_init_info(self) -> str:
        return f"{type(self).__name__}: load from {self.checkpoint}"


def initialize(module: nn.Module, init_cfg: dict | list[dict]) -> None:
    """Run initializers on `module`.

    Args:
        module: what to initialize.
        init_cfg: config of an initializer, or several. Its key `override` names submodules
            (`name`) that get another initializer, or this one whatever their class.
    """
    for config in _list_of_dicts("init_cfg", init_cfg):
        own = copy.deepcopy(config)
        override = own.pop("override", None)
        _initialize(module, own)
        if override is not None:
            own.pop("layer", None)
            _initialize_override(module, override, own)


def _list_of_dicts(name: str, value: dict | list[dict]) -> list[dict]:
    if not isinstance(value, dict | list):
        raise TypeError(f"{name} must be a dict or a list of dict, but got {type(value)}")
    return [value] if isinstance(value, dict) else value


def _initialize(module: nn.Module, cfg: dict, wholemodule: bool = False) -> None:
    initializer = build_from_cfg(cfg, WEIGHT_INITIALIZERS)
    initializer.wholemodule = wholemodule
    initializer(module)


def _initialize_override(module: nn.Module, override: dict | list[dict], cfg: dict) -> None:
    for entry in _list_of_dicts("override", override):
        own = copy.deepcopy(entry)
        name = own.pop("name", None)
        if name is None:
            raise ValueError(f'`override` must contain the key "name",but got {own}')
        if not own:
            own.update(cfg)
        elif "type" not in own:
            raise ValueError(f'`override` need "type" key, but got {own}')
        if not hasattr(module, name):
            raise RuntimeError(f"module did not have attribute {name}, but init_cfg is {own}.")
        _initialize(getattr(module, name), own, wholemodule=True)
