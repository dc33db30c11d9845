"""MMFullyShardedDataParallel: torch's FSDP with the steps of a BaseModel, configurable by names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed as torch_dist
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.fsdp import (
    BackwardPrefetch,
    CPUOffload,
    FullyShardedDataParallel,
    MixedPrecision,
    ShardingStrategy,
)

from fasttrain.model.wrappers.distributed import WrappedSteps
from fasttrain.model.wrappers.utils import named_dtype
from fasttrain.registry import FUNCTIONS, MODEL_WRAPPERS

PRECISION_DTYPES = ("param_dtype", "reduce_dtype", "buffer_dtype")


@MODEL_WRAPPERS.register_module(force=True)  # in the place of the function that imports this
class MMFullyShardedDataParallel(WrappedSteps, FullyShardedDataParallel):
    """FullyShardedDataParallel whose train_step goes through FSDP's forward.

    Args:
        module: the model.
        process_group: a group, or the keyword arguments of `torch.distributed.new_group`.
        sharding_strategy: `ShardingStrategy` or its name.
        cpu_offload: `CPUOffload`, or whether parameters are offloaded.
        auto_wrap_policy: a function, its name in FUNCTIONS, or a dict with `type` and arguments.
        backward_prefetch: `BackwardPrefetch` or its name.
        mixed_precision: `MixedPrecision`, or its arguments, dtypes by name ('float16') too.
        param_init_fn: a function, its name in FUNCTIONS, or a dict with `type` and arguments.
        use_orig_params: FSDP's.
        kwargs: the other ones of FullyShardedDataParallel; `ignored_modules` and
            `ignored_parameters` (or `ignored_states`, torch's name) may hold names.
    """

    def __init__(
        self,
        module: nn.Module,
        process_group: dict | ProcessGroup | None = None,
        sharding_strategy: str | ShardingStrategy | None = None,
        cpu_offload: bool | CPUOffload | None = None,
        auto_wrap_policy: str | dict | Callable | None = None,
        backward_prefetch: str | BackwardPrefetch | None = None,
        mixed_precision: dict | MixedPrecision | None = None,
        param_init_fn: str | dict | Callable[[nn.Module], None] | None = None,
        use_orig_params: bool = True,
        **kwargs: Any,
    ) -> None:
        if isinstance(cpu_offload, bool):
            cpu_offload = CPUOffload(offload_params=cpu_offload)
        if not isinstance(cpu_offload, CPUOffload | None):
            raise _wrong_type("cpu_offload", "`None`, `bool` or `CPUOffload`", cpu_offload)
        if isinstance(mixed_precision, dict):
            mixed_precision = _mixed_precision(mixed_precision)
        if not isinstance(mixed_precision, MixedPrecision | None):
            expected = "`None`, `dict` or `MixedPrecision`"
            raise _wrong_type("mixed_precision", expected, mixed_precision)
        super().__init__(
            module=module,
            process_group=torch_dist.new_group(**process_group)
            if isinstance(process_group, dict)
            else process_group,
            sharding_strategy=_member("sharding_strategy", ShardingStrategy, sharding_strategy),
            cpu_offload=cpu_offload,
            auto_wrap_policy=_function("auto_wrap_policy", auto_wrap_policy),
            backward_prefetch=_member("backward_prefetch", BackwardPrefetch, backward_prefetch)
            or BackwardPrefetch.BACKWARD_PRE,
            mixed_precision=mixed_precision,
            param_init_fn=_function("param_init_fn", param_init_fn),
            use_orig_params=use_orig_params,
            **_with_ignored(module, kwargs),
        )

    def val_step(self, data: dict | tuple | list) -> list:
        """Predict on one batch, through FSDP's forward, which gathers the parameters."""
        return self._run_forward(self.module.data_preprocessor(data, False), mode="predict")

    def test_step(self, data: dict | tuple | list) -> list:
        """Predict on one batch, through FSDP's forward, which gathers the parameters."""
        return self._run_forward(self.module.data_preprocessor(data, False), mode="predict")


def _member(name: str, enum: Any, value: Any) -> Any:
    """An enum's member, given as itself or by name."""
    if value is None or isinstance(value, enum):
        return value
    names = list(enum.__members__)
    if not isinstance(value, str):
        raise _wrong_type(name, f"`None`, one of {names} or `{enum.__name__}`", value)
    if value not in names:
        raise ValueError(f"{name} should be one of {names} or a {enum.__name__}, got {value!r}")
    return enum[value]


def _function(name: str, value: Any) -> Any:
    """A function, given as itself, by its registered name, or as a dict with arguments."""
    arguments: dict[str, Any] = {}
    if isinstance(value, dict):
        arguments = {key: item for key, item in value.items() if key != "type"}
        value = value["type"]
    if isinstance(value, str):
        function = FUNCTIONS.get(value)
        if function is None:
            raise ValueError(f"`{name}` is not registered! FUNCTIONS has no {value!r}")
        value = function
    if value is not None and not callable(value):
        raise _wrong_type(name, "a str, a callable, a dict or None", value)
    return functools.partial(value, **arguments) if arguments else value


def _wrong_type(name: str, expected: str, value: Any) -> TypeError:
    return TypeError(f"`{name}` should be {expected}, but has type {type(value)}")


def _with_ignored(module: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
    """The options with names of ignored modules and parameters replaced by what they name."""
    found = dict(options)
    if "ignored_parameters" in found:
        found["ignored_states"] = found.pop("ignored_parameters")
    if (modules := found.get("ignored_modules")) is not None:
        found["ignored_modules"] = _named(
            "ignored_modules", nn.Module, modules, dict(module.named_modules())
        )
    if (states := found.get("ignored_states")) is not None:
        if not any(isinstance(item, nn.Module) for item in states):
            states = _named(
                "ignored_parameters", nn.Parameter, states, dict(module.named_parameters())
            )
        found["ignored_states"] = states
    return found


def _named(name: str, kind: type, given: Any, by_name: Mapping[str, Any]) -> list[Any]:
    """Objects of a kind, given as themselves or by their names."""
    items = [given] if isinstance(given, str) else given
    expected = f"`None`, `Iterable[str]` or `Iterable[nn.{kind.__name__}]`"
    if not isinstance(items, list | tuple) or not all(isinstance(i, str | kind) for i in items):
        raise _wrong_type(name, expected, given)
    missing = [item for item in items if isinstance(item, str) and item not in by_name]
    if missing:
        raise KeyError(f"{name} has names that the model lacks: {missing}")
    return [by_name[item] if isinstance(item, str) else item for item in items]


def _mixed_precision(config: dict) -> MixedPrecision:
    resolved = dict(config)
    for key in PRECISION_DTYPES:
        if isinstance(resolved.get(key), str):
            dtype = named_dtype(resolved[key])
            if dtype is None:
                raise ValueError(f"mixed_precision: {key}={resolved[key]!r} is no dtype of torch")
            resolved[key] = dtype
    return MixedPrecision(**resolved)
