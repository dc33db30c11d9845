"""Read and load a module's state dict through wrappers, with a report of what does not match."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from logging import WARNING, Logger
from typing import Any

import torch
from torch import Tensor, nn

from fasttrain.core.sharding import any_sharded, shard_weights
from fasttrain.dist import get_dist_info
from fasttrain.logging import print_log
from fasttrain.model.wrappers import is_model_wrapper


class _IncompatibleKeys(namedtuple("_IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What post hooks of loading receive and may edit."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


def load_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    strict: bool = False,
    logger: Logger | str | None = None,
) -> None:
    """Load weights into a module and report keys and shapes that do not match.

    Unlike `nn.Module.load_state_dict` it looks through model wrappers at every depth, and a
    mismatch of shapes is an error only when `strict`. Parameters that are spread over the ranks
    take their parts of whole weights; all ranks must call it then.

    Raises:
        RuntimeError: `strict` and something does not match; the text is the whole report.
    """
    metadata = getattr(state_dict, "_metadata", None)
    if any_sharded(module.parameters()):
        state_dict = shard_weights(state_dict, get_state_dict(module))
    state: OrderedDict[str, Tensor] = OrderedDict(state_dict)
    if metadata is not None:
        state._metadata = metadata  # type: ignore[attr-defined]
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []

    def visit(part: nn.Module, prefix: str) -> None:
        part = part.module if is_model_wrapper(part) else part  # type: ignore[assignment]
        local = {} if metadata is None else metadata.get(prefix[:-1], {})
        part._load_from_state_dict(state, prefix, local, True, missing, unexpected, errors)
        for name, child in part._modules.items():
            if child is not None:
                visit(child, f"{prefix}{name}.")
        for hook in getattr(part, "_load_state_dict_post_hooks", {}).values():
            edited = hook(part, _IncompatibleKeys(missing, unexpected))
            if edited is not None:
                raise TypeError(
                    "a hook registered with register_load_state_dict_post_hook must return None "
                    f"and edit the keys in place, got {type(edited).__name__}"
                )

    visit(module, "")
    _report(missing, unexpected, errors, strict, logger)


def _report(
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
    strict: bool,
    logger: Logger | str | None,
) -> None:
    lines = list(errors)
    if unexpected:
        lines.append(f"unexpected key in source state_dict: {', '.join(unexpected)}\n")
    missing = [key for key in missing if "num_batches_tracked" not in key]
    if missing:
        lines.append(f"missing keys in source state_dict: {', '.join(missing)}\n")
    if not lines:
        return
    text = "\n".join(["The model and loaded state dict do not match exactly\n", *lines])
    if strict:
        raise RuntimeError(text)
    if get_dist_info()[0] == 0:
        print_log(text, logger=logger, level=WARNING)


def get_state_dict(
    module: nn.Module,
    destination: OrderedDict[str, Any] | None = None,
    prefix: str = "",
    keep_vars: bool = False,
) -> OrderedDict[str, Any]:
    """A module's parameters and persistent buffers by name, model wrappers left out of the names.

    Hooks registered for `state_dict` run at every module, as in `nn.Module.state_dict`.
    """
    if is_model_wrapper(module):
        module = module.module  # type: ignore[assignment]
    if destination is None:
        destination = OrderedDict()
        destination._metadata = OrderedDict()  # type: ignore[attr-defined]
    local = {"version": module._version}
    destination._metadata[prefix[:-1]] = local  # type: ignore[attr-defined]
    _save_to_state_dict(module, destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            get_state_dict(child, destination, f"{prefix}{name}.", keep_vars=keep_vars)
    for hook in module._state_dict_hooks.values():
        edited = hook(module, destination, prefix, local)
        if edited is not None:
            destination = edited
    return destination


def _save_to_state_dict(
    module: nn.Module, destination: OrderedDict[str, Any], prefix: str, keep_vars: bool
) -> None:
    module._save_to_state_dict(destination, prefix, keep_vars)


def weights_to_cpu(state_dict: OrderedDict[str, Any]) -> OrderedDict[str, Any]:
    """A copy of the state dict with its tensors in host memory; those there are shared, not copied.

    Nested dicts, lists and tuples are followed, other values stay as they are.
    """
    moved: OrderedDict[str, Any] = OrderedDict(
        (key, _to_cpu(value)) for key, value in state_dict.items()
    )
    moved._metadata = getattr(state_dict, "_metadata", OrderedDict())  # type: ignore[attr-defined]
    return moved


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_to_cpu(entry) for entry in value)
    return value
