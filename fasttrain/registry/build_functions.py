"""How a registry turns a config into an object."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from fasttrain.utils.imports import get_object_from_string

from .lookup import unknown_type_message

if TYPE_CHECKING:
    from .registry import Registry

logger = logging.getLogger("fasttrain.registry")

_SEQUENTIAL = "fasttrain.model.Sequential"  # by name: the registry is a layer below the models


def is_cfg(value: Any) -> bool:
    """Whether `value` is a dict, a ConfigDict, or a Config (known by the dict it holds)."""
    return isinstance(value, dict) or isinstance(getattr(value, "_cfg_dict", None), dict)


def merged_arguments(cfg: Any, default_args: Any) -> Any:
    """A copy of `cfg`, completed by `default_args`; neither is changed."""
    args = cfg.copy() if isinstance(cfg, dict) else cfg._cfg_dict.copy()
    for name, value in dict(default_args.items() if default_args is not None else ()).items():
        args.setdefault(name, value)
    return args


def resolve_type(obj_type: Any, registry: Registry) -> Any:
    """Return the class or function that a config's `type` stands for.

    Raises:
        KeyError: the registry, its parents and its children do not have the name.
        TypeError: neither a string nor something that can be called.
    """
    if isinstance(obj_type, str):
        found = registry.get(obj_type)
        if found is None:
            raise KeyError(unknown_type_message(obj_type, registry))
        return found
    if callable(obj_type):
        return obj_type
    raise TypeError(f"type must be a str or valid type, but got {type(obj_type)}")


def _check_build_arguments(cfg: Any, registry: Any, default_args: Any) -> None:
    from .registry import Registry

    if not is_cfg(cfg):
        raise TypeError(f"cfg should be a dict, ConfigDict or Config, but got {type(cfg)}")
    if "type" not in cfg and (default_args is None or "type" not in default_args):
        raise KeyError(
            '`cfg` or `default_args` must contain the key "type", '
            f"but got {cfg}\n{default_args}; add the name of a registered class as `type`"
        )
    if not isinstance(registry, Registry):
        raise TypeError(f"registry must be a mmengine.Registry object, but got {type(registry)}")
    if not (default_args is None or is_cfg(default_args)):
        raise TypeError(
            "default_args should be a dict, ConfigDict, Config or None, "
            f"but got {type(default_args)}"
        )


def _check_cfg_and_registry(cfg: Any, registry: Any) -> None:
    from .registry import Registry

    assert is_cfg(cfg), f"cfg should be a dict, ConfigDict or Config, but got {type(cfg)}"
    assert isinstance(registry, Registry), (
        f"registry should be a mmengine.Registry object, but got {type(registry)}"
    )


def _call(build: Any, args: Any, obj_type: Any, registry: Registry) -> Any:
    """Call `build(**args)`; an error of any kind keeps its type and gains a note on its origin."""
    name = getattr(obj_type, "__qualname__", repr(obj_type))
    origin = f"`{name}` of module {getattr(obj_type, '__module__', None)!r}"
    try:
        built = build(**args)
    except Exception as e:
        if hasattr(e, "add_note"):
            e.add_note(f"while building {origin} from the {registry.name} registry")
        raise
    logger.debug("built %s from the %s registry", origin, registry.name)
    return built


def build_from_cfg(cfg: Any, registry: Registry, default_args: Any = None) -> Any:
    """Build an object from a config; the caller's dicts stay as they are.

    Args:
        cfg: holds `type`, a registered name, a class or a function, and the call's arguments;
            `_scope_`, when there, is the scope in which `type` is looked up.
        registry: where `type` is looked up.
        default_args: arguments for what `cfg` does not have.
    Raises:
        KeyError: no `type`, or a name that is not registered.
        TypeError: an argument of another kind than described.
    """
    _check_build_arguments(cfg, registry, default_args)
    args = merged_arguments(cfg, default_args)
    with registry.switch_scope_and_registry(args.pop("_scope_", None)) as scoped:
        obj_type = resolve_type(args.pop("type"), scoped)
        # Instances of managed classes are kept by name (also of an installed mmengine's, whose
        # base class is not ours: known by its methods).
        managed = inspect.isclass(obj_type) and hasattr(obj_type, "check_instance_created")
        return _call(obj_type.get_instance if managed else obj_type, args, obj_type, scoped)


def build_runner_from_cfg(cfg: Any, registry: Registry) -> Any:
    """Build a runner by the `from_cfg` of the class that `runner_type` names (default: Runner).

    Raises:
        KeyError: `runner_type` is not registered.
    """
    _check_cfg_and_registry(cfg, registry)
    args = cfg.copy()
    with registry.switch_scope_and_registry(args.pop("_scope_", None)) as scoped:
        runner_type = resolve_type(args.get("runner_type", "Runner"), scoped)
        return _call(lambda: runner_type.from_cfg(args), {}, runner_type, scoped)


def build_model_from_cfg(cfg: Any, registry: Registry, default_args: Any = None) -> Any:
    """Build a model, or of a list of configs a `Sequential` of the models in it."""
    if isinstance(cfg, list):
        models = [build_from_cfg(part, registry, default_args) for part in cfg]
        return get_object_from_string(_SEQUENTIAL)(*models)
    return build_from_cfg(cfg, registry, default_args)


def build_optimizer_from_cfg(cfg: Any, registry: Registry, default_args: Any = None) -> Any:
    """Build an optimizer; logs, for `type="Adafactor"`, whose Adafactor has which name."""
    if is_cfg(cfg) and cfg.get("type") == "Adafactor":
        logger.warning(
            "Adafactor is the one of the package transformers; torch's is called TorchAdafactor"
        )
    return build_from_cfg(cfg, registry, default_args)


def build_scheduler_from_cfg(cfg: Any, registry: Registry, default_args: Any = None) -> Any:
    """Build a parameter scheduler.

    With `convert_to_iter_based=True` in `cfg` the scheduler, described in epochs, is built by its
    `build_iter_from_epoch`, and `epoch_length` must be given.
    """
    _check_cfg_and_registry(cfg, registry)
    _check_build_arguments(cfg, registry, default_args)
    args = merged_arguments(cfg, default_args)
    with registry.switch_scope_and_registry(args.pop("_scope_", None)) as scoped:
        if not args.pop("convert_to_iter_based", False):
            return build_from_cfg(args, scoped)
        assert args.get("by_epoch", True) and "epoch_length" in args, (
            "Only epoch-based parameter scheduler can be converted to iter-based, "
            "and `epoch_length` should be set"
        )
        scheduler_type = resolve_type(args.pop("type"), scoped)
        return _call(scheduler_type.build_iter_from_epoch, args, scheduler_type, scoped)
