"""Builds an optimizer wrapper from a config, with settings of its own for each parameter."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from torch import nn
from torch.nn import GroupNorm, LayerNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fasttrain.logging import print_log
from fasttrain.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

from .optimizer_wrapper import OptimWrapper

_NORMS = (_BatchNorm, _InstanceNorm, GroupNorm, LayerNorm)


def _deformable_types() -> tuple[type, ...]:
    """mmcv's deformable convolutions, where mmcv with its operators is installed."""
    try:
        from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
    except ImportError:
        return ()
    return (DeformConv2d, ModulatedDeformConv2d)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.in_channels == module.groups


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DefaultOptimWrapperConstructor:
    """Builds the optimizer, with one group per parameter under a `paramwise_cfg`, and wraps it.

    Under a `paramwise_cfg`, parameters that need no gradient are left out, with a warning.

    Keys of `paramwise_cfg`, all optional:

    - `custom_keys`: part of a parameter's name -> dict of `lr_mult`, `decay_mult` and further
      settings, which all become entries of the group; the longest match counts, and none of the
      keys below.
    - `bias_lr_mult`: for biases, except those of norms and in deformable convolutions.
    - `norm_decay_mult`: for weight and bias of normalization layers.
    - `bias_decay_mult`: for biases, except those in deformable convolutions.
    - `dwconv_decay_mult`: for depthwise convolutions.
    - `flat_decay_mult`: for all parameters of one dimension that no other key is for.
    - `dcn_offset_lr_mult`: for the offset layers of deformable convolutions.
    - `bypass_duplicate`: take a parameter that occurs several times once, with a warning.

    Args:
        optim_wrapper_cfg: config of the wrapper, with the optimizer's under `optimizer`.
        paramwise_cfg: see above.
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        if not isinstance(optim_wrapper_cfg, dict):
            raise TypeError(
                f"optimizer_cfg should be a dict, but got {type(optim_wrapper_cfg)}",
            )
        assert "optimizer" in optim_wrapper_cfg, (
            '`optim_wrapper_cfg` must contain "optimizer" config'
        )
        self.optim_wrapper_cfg = optim_wrapper_cfg.copy()
        self.optimizer_cfg = self.optim_wrapper_cfg.pop("optimizer")
        if not isinstance(self.optimizer_cfg, dict):
            raise TypeError(
                "`optimizer` in the optimizer wrapper's config should be a dict, "
                f"but got {type(self.optimizer_cfg)}"
            )
        self.paramwise_cfg = {} if paramwise_cfg is None else paramwise_cfg
        self.base_lr = self.optimizer_cfg.get("lr")
        self.base_wd = self.optimizer_cfg.get("weight_decay")
        self._validate_cfg()

    def _validate_cfg(self) -> None:
        if not isinstance(self.paramwise_cfg, dict):
            raise TypeError(
                f"paramwise_cfg should be None or a dict, but got {type(self.paramwise_cfg)}"
            )
        custom_keys = self.paramwise_cfg.get("custom_keys", {})
        if not isinstance(custom_keys, dict):
            raise TypeError(
                f"If specified, custom_keys must be a dict, but got {type(custom_keys)}"
            )
        multiplies_decay = any(
            self.paramwise_cfg.get(f"{kind}_decay_mult") is not None
            for kind in ("norm", "bias", "dwconv")
        ) or any("decay_mult" in custom for custom in custom_keys.values())
        if multiplies_decay and self.base_wd is None:
            raise ValueError(
                "base_wd should not be None: paramwise_cfg multiplies weight_decay, which the "
                "optimizer's config does not give; add weight_decay to it"
            )
        if self.base_wd is None and self.paramwise_cfg.get("flat_decay_mult") is not None:
            print_log(
                "flat_decay_mult is ignored: the optimizer's config does not give weight_decay",
                logger="current",
                level=logging.WARNING,
            )

    def _times_base_lr(self, multiplier: float) -> float:
        if self.base_lr is None:
            raise ValueError(
                "base_lr should not be None: paramwise_cfg multiplies lr, which the optimizer's "
                "config does not give; add lr to it"
            )
        return self.base_lr * multiplier

    def _is_in(self, param_group: dict[str, Any], param_group_list: list[dict[str, Any]]) -> bool:
        """Whether a parameter of the group is in a group of the list already."""
        own = {id(param) for param in param_group["params"]}
        return any(id(param) in own for group in param_group_list for param in group["params"])

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append one group for each parameter of `module` and its children.

        Args:
            params: the groups so far; appended to.
            module: whose parameters are added.
            prefix: the module's full name.
            is_dcn_module: whether the module lies in a deformable convolution.
        """
        for name, param in module.named_parameters(recurse=False):
            group: dict[str, Any] = {"params": [param]}
            full_name = f"{prefix}.{name}" if prefix else name
            if not param.requires_grad:
                print_log(
                    f"{full_name} is skipped since its requires_grad=False",
                    logger="current",
                    level=logging.WARNING,
                )
                continue
            if self.paramwise_cfg.get("bypass_duplicate", False) and self._is_in(group, params):
                print_log(
                    f"{full_name} is duplicate. It is skipped since bypass_duplicate=True",
                    logger="current",
                    level=logging.WARNING,
                )
                continue
            settings = self._custom_settings(f"{prefix}.{name}")
            if settings is None:
                settings = self._typical_settings(module, prefix, name, param, is_dcn_module)
            group.update(settings)
            params.append(group)
            for key, value in group.items():
                if key != "params":
                    print_log(f"paramwise_options -- {full_name}:{key}={value}", logger="current")

        is_dcn_module = isinstance(module, self._deformable)
        for child_name, child in module.named_children():
            child_prefix = f"{prefix}.{child_name}" if prefix else child_name
            self.add_params(params, child, prefix=child_prefix, is_dcn_module=is_dcn_module)

    @property
    def _deformable(self) -> tuple[type, ...]:
        types: tuple[type, ...] | None = self.__dict__.get("_deformable_types")
        if types is None:
            types = self._deformable_types = _deformable_types()
        return types

    def _custom_settings(self, full_name: str) -> dict[str, Any] | None:
        """Settings by the longest custom key in the parameter's name; None when none matches."""
        custom_keys = self.paramwise_cfg.get("custom_keys", {})
        for key in sorted(sorted(custom_keys), key=len, reverse=True):
            if key not in full_name:
                continue
            custom = custom_keys[key]
            settings: dict[str, Any] = {}
            if self.base_lr is not None or "lr_mult" in custom:
                settings["lr"] = self._times_base_lr(custom.get("lr_mult", 1.0))
            if self.base_wd is not None:
                settings["weight_decay"] = self.base_wd * custom.get("decay_mult", 1.0)
            return {**settings, **custom}
        return None

    def _typical_settings(
        self,
        module: nn.Module,
        prefix: str,
        name: str,
        param: nn.Parameter,
        is_dcn_module: int | float | None,
    ) -> dict[str, Any]:
        """Settings by what kind of parameter it is."""
        cfg = self.paramwise_cfg
        is_norm = isinstance(module, _NORMS)
        is_bias = name == "bias" and not is_dcn_module
        settings: dict[str, Any] = {}
        lr_mult = None
        if is_bias and not is_norm:
            lr_mult = cfg.get("bias_lr_mult")
        elif is_dcn_module and "conv_offset" in prefix and isinstance(module, nn.Conv2d):
            lr_mult = cfg.get("dcn_offset_lr_mult")
        if lr_mult is not None:
            settings["lr"] = self._times_base_lr(lr_mult)

        # The first kind that the parameter is of, and that has a multiplier, counts.
        kinds = {
            "norm_decay_mult": is_norm,
            "bias_decay_mult": is_bias,
            "dwconv_decay_mult": _is_depthwise(module),
            "flat_decay_mult": param.ndim == 1 and not is_dcn_module,
        }
        of_kind = [
            key for key, is_of_kind in kinds.items() if is_of_kind and cfg.get(key) is not None
        ]
        if of_kind and self.base_wd is not None:
            settings["weight_decay"] = self.base_wd * cfg[of_kind[0]]
        return settings

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer for `model` and its wrapper."""
        module = getattr(model, "module", None)
        if isinstance(module, nn.Module):
            model = module
        optim_wrapper_cfg = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        optimizer_cfg = self.optimizer_cfg.copy()
        parameters: Any = model.parameters()
        if self.paramwise_cfg:
            parameters = []
            self.add_params(parameters, model)
        optimizer_cfg[self._first_argument(optimizer_cfg.get("type"))] = parameters
        optimizer: torch.optim.Optimizer = OPTIMIZERS.build(optimizer_cfg)
        wrapper: OptimWrapper = OPTIM_WRAPPERS.build(
            optim_wrapper_cfg, default_args={"optimizer": optimizer}
        )
        return wrapper

    @staticmethod
    def _first_argument(optimizer_type: Any) -> str:
        """Name of the argument that takes the parameters: `params`, as a rule."""
        if isinstance(optimizer_type, str):
            with OPTIMIZERS.switch_scope_and_registry(None) as registry:
                optimizer_type = registry.get(optimizer_type)
        if optimizer_type is None:  # unknown: building it says what is there
            return "params"
        return next(iter(inspect.signature(optimizer_type).parameters))
