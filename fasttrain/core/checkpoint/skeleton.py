"""The pickle of a checkpoint in torch's spelling: the tree, with storages named by number."""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import UntypedStorage
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2, _rebuild_tensor_v3

from fasttrain.core.checkpoint.storages import (
    RebuildRef,
    StorageRef,
    TensorRef,
    storage_class_name,
)

PROTOCOL = 2  # the only one whose every opcode torch's restricted loader reads


def pickle_tree(tree: Any) -> bytes:
    """The bytes of `data.pkl` for a plain tree whose tensors are references."""
    buffer = io.BytesIO()
    _TreePickler(buffer, PROTOCOL).dump(tree)
    return buffer.getvalue()


def rebuild_tree(tree: Any, storages: Sequence[UntypedStorage]) -> Any:
    """The tree with real tensors over `storages` in place of the references."""
    if isinstance(tree, TensorRef):
        return tree.rebuild(storages)
    if isinstance(tree, StorageRef):
        return torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
            wrap_storage=storages[tree.index], dtype=tree.dtype, _internal=True
        )
    if isinstance(tree, RebuildRef):
        return tree.function(*(rebuild_tree(entry, storages) for entry in tree.arguments))
    if isinstance(tree, dict):
        rebuilt = type(tree)()
        vars(rebuilt).update(vars(tree)) if type(tree) is collections.OrderedDict else None
        for key, entry in tree.items():
            rebuilt[key] = rebuild_tree(entry, storages)
        return rebuilt
    if type(tree) in (list, tuple):
        return type(tree)([rebuild_tree(entry, storages) for entry in tree])
    return tree


class _TreePickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not StorageRef:
            return None
        kind = getattr(torch, storage_class_name(obj.dtype), UntypedStorage)
        return ("storage", kind, str(obj.index), "cpu", obj.num_items)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is TensorRef:
            return self._tensor(obj)
        if type(obj) is RebuildRef:
            return (obj.function, obj.arguments)
        return NotImplemented

    def _tensor(self, ref: TensorRef) -> tuple[Any, ...]:
        hooks: collections.OrderedDict[str, Any] = collections.OrderedDict()
        place = (ref.storage, ref.offset, ref.size, ref.stride)
        if ref.is_parameter:
            bare = TensorRef(*place, requires_grad=False, is_parameter=False)
            return (_rebuild_parameter, (bare, ref.requires_grad, hooks))
        if storage_class_name(ref.storage.dtype) == "UntypedStorage":
            return (_rebuild_tensor_v3, (*place, ref.requires_grad, hooks, ref.storage.dtype))
        return (_rebuild_tensor_v2, (*place, ref.requires_grad, hooks))
