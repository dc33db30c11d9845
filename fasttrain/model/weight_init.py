"""Initializers: functions on one module, and configurable classes that choose modules by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fasttrain.logging import print_log
from fasttrain.registry import WEIGHT_INITIALIZERS, build_from_cfg

trunc_normal_ = nn.init.trunc_normal_


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


def _init_parts(module: nn.Module, init_weight: Callable[[Tensor], Any], bias: float) -> None:
    """Apply `init_weight` to the weight and fill the bias, where the module has them."""
    if getattr(module, "weight", None) is not None:
        init_weight(module.weight)  # type: ignore[arg-type]
    if getattr(module, "bias", None) is not None:
        nn.init.constant_(module.bias, bias)  # type: ignore[arg-type]


def constant_init(module: nn.Module, val: float, bias: float = 0) -> None:
    """Fill the weight with `val`."""
    _init_parts(module, lambda weight: nn.init.constant_(weight, val), bias)


def xavier_init(
    module: nn.Module, gain: float = 1, bias: float = 0, distribution: str = "normal"
) -> None:
    """Xavier (Glorot) initialization, 'uniform' or 'normal'."""
    fill = _of_distribution(distribution, nn.init.xavier_uniform_, nn.init.xavier_normal_)
    _init_parts(module, lambda weight: fill(weight, gain=gain), bias)


def normal_init(module: nn.Module, mean: float = 0, std: float = 1, bias: float = 0) -> None:
    """Normal distribution."""
    _init_parts(module, lambda weight: nn.init.normal_(weight, mean, std), bias)


def trunc_normal_init(
    module: nn.Module, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, bias: float = 0
) -> None:
    """Normal distribution, redrawn into [a, b]."""
    _init_parts(module, lambda weight: trunc_normal_(weight, mean, std, a, b), bias)


def uniform_init(module: nn.Module, a: float = 0, b: float = 1, bias: float = 0) -> None:
    """Uniform distribution on [a, b]."""
    _init_parts(module, lambda weight: nn.init.uniform_(weight, a, b), bias)


def kaiming_init(
    module: nn.Module,
    a: float = 0,
    mode: str = "fan_out",
    nonlinearity: str = "relu",
    bias: float = 0,
    distribution: str = "normal",
) -> None:
    """Kaiming (He) initialization, 'uniform' or 'normal'; `a` is the slope below zero."""
    fill: Any = _of_distribution(distribution, nn.init.kaiming_uniform_, nn.init.kaiming_normal_)
    _init_parts(
        module, lambda weight: fill(weight, a=a, mode=mode, nonlinearity=nonlinearity), bias
    )


def caffe2_xavier_init(module: nn.Module, bias: float = 0) -> None:
    """Caffe2's XavierFill: uniform with variance 1 / fan_in."""
    kaiming_init(
        module, a=1, mode="fan_in", nonlinearity="leaky_relu", bias=bias, distribution="uniform"
    )


def bias_init_with_prob(prior_prob: float) -> float:
    """The bias from which a sigmoid gives `prior_prob`."""
    return -math.log((1 - prior_prob) / prior_prob)


def _of_distribution(name: str, uniform: Any, normal: Any) -> Any:
    assert name in ("uniform", "normal"), f"distribution must be uniform or normal, got {name}"
    return uniform if name == "uniform" else normal


class BaseInit:
    """Initialize the modules whose class, or a direct base of it, is named in `layer`.

    Args:
        bias: what the bias is filled with.
        bias_prob: instead, the probability that a sigmoid gives for that bias.
        layer: class names; none chooses nothing, unless `wholemodule` is set.
    """

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
        """Initialize the chosen submodules of `module` and note it."""
        for submodule in reversed(list(module.modules())):
            if self.wholemodule or set(self.layer) & _names(submodule):
                self._init_module(submodule)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())

    def _init_module(self, module: nn.Module) -> None:
        raise NotImplementedError

    def _get_init_info(self) -> str:
        return f"{type(self).__name__}, bias={self.bias}"


def _names(module: nn.Module) -> set[str]:
    kind = type(module)
    return {kind.__name__, *(base.__name__ for base in kind.__bases__)}


@WEIGHT_INITIALIZERS.register_module(name="Constant")
class ConstantInit(BaseInit):
    """See `constant_init`."""

    def __init__(self, val: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val = val

    def _init_module(self, module: nn.Module) -> None:
        constant_init(module, self.val, self.bias)

    def _get_init_info(self) -> str:
        return f"{type(self).__name__}: val={self.val}, bias={self.bias}"


@WEIGHT_INITIALIZERS.register_module(name="Xavier")
class XavierInit(BaseInit):
    """See `xavier_init`."""

    def __init__(self, gain: float = 1, distribution: str = "normal", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gain = gain
        self.distribution = distribution

    def _init_module(self, module: nn.Module) -> None:
        xavier_init(module, self.gain, self.bias, self.distribution)

    def _get_init_info(self) -> str:
        return (
            f"{type(self).__name__}: gain={self.gain}, distribution={self.distribution}, "
            f"bias={self.bias}"
        )


@WEIGHT_INITIALIZERS.register_module(name="Normal")
class NormalInit(BaseInit):
    """See `normal_init`."""

    def __init__(self, mean: float = 0, std: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean = mean
        self.std = std

    def _init_module(self, module: nn.Module) -> None:
        normal_init(module, self.mean, self.std, self.bias)

    def _get_init_info(self) -> str:
        return f"{type(self).__name__}: mean={self.mean}, std={self.std}, bias={self.bias}"


@WEIGHT_INITIALIZERS.register_module(name="TruncNormal")
class TruncNormalInit(BaseInit):
    """See `trunc_normal_init`."""

    def __init__(
        self, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mean = mean
        self.std = std
        self.a = a
        self.b = b

    def _init_module(self, module: nn.Module) -> None:
        trunc_normal_init(module, self.mean, self.std, self.a, self.b, self.bias)

    def _get_init_info(self) -> str:
        return (
            f"{type(self).__name__}: a={self.a}, b={self.b}, mean={self.mean}, std={self.std}, "
            f"bias={self.bias}"
        )


@WEIGHT_INITIALIZERS.register_module(name="Uniform")
class UniformInit(BaseInit):
    """See `uniform_init`."""

    def __init__(self, a: float = 0, b: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a = a
        self.b = b

    def _init_module(self, module: nn.Module) -> None:
        uniform_init(module, self.a, self.b, self.bias)

    def _get_init_info(self) -> str:
        return f"{type(self).__name__}: a={self.a}, b={self.b}, bias={self.bias}"


@WEIGHT_INITIALIZERS.register_module(name="Kaiming")
class KaimingInit(BaseInit):
    """See `kaiming_init`."""

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

    def _init_module(self, module: nn.Module) -> None:
        kaiming_init(module, self.a, self.mode, self.nonlinearity, self.bias, self.distribution)

    def _get_init_info(self) -> str:
        return (
            f"{type(self).__name__}: a={self.a}, mode={self.mode}, "
            f"nonlinearity={self.nonlinearity}, distribution ={self.distribution}, "
            f"bias={self.bias}"
        )


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
