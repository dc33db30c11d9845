"""The storages behind a tree's tensors: each bytes block once, views and sharing kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.nn import Parameter

from fasttrain.core.sharding import is_sharded, whole

# Names of the storage classes by which torch's format spells these dtypes; other dtypes are
# spelled by an untyped storage and the tensor's own dtype.
_CLASS_NAMES = {
    torch.float64: "DoubleStorage",
    torch.float32: "FloatStorage",
    torch.float16: "HalfStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.int64: "LongStorage",
    torch.int32: "IntStorage",
    torch.int16: "ShortStorage",
    torch.int8: "CharStorage",
    torch.uint8: "ByteStorage",
    torch.bool: "BoolStorage",
    torch.complex64: "ComplexFloatStorage",
    torch.complex128: "ComplexDoubleStorage",
    torch.quint8: "QUInt8Storage",
    torch.qint8: "QInt8Storage",
    torch.qint32: "QInt32Storage",
    torch.quint4x2: "QUInt4x2Storage",
    torch.quint2x4: "QUInt2x4Storage",
}


def storage_class_name(dtype: torch.dtype) -> str:
    """How torch's format spells the class of a storage of `dtype`."""
    return _CLASS_NAMES.get(dtype, "UntypedStorage")


@dataclass(frozen=True, slots=True)
class StorageRef:
    """Storage number `index` of the file, seen as items of `dtype`."""

    index: int
    dtype: torch.dtype
    num_items: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A strided tensor over one storage of the file."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool
    is_parameter: bool

    def rebuild(self, storages: Sequence[UntypedStorage]) -> Tensor:
        """The tensor over the given storages, one for each number."""
        tensor = torch.empty(0, dtype=self.storage.dtype)
        tensor.set_(storages[self.storage.index], self.offset, self.size, self.stride)  # type: ignore[call-overload]
        if self.is_parameter:
            return Parameter(tensor, self.requires_grad)
        return tensor.requires_grad_(self.requires_grad)


@dataclass(frozen=True, slots=True)
class RebuildRef:
    """A tensor of another layout (sparse, quantized): torch's rebuild function and arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class StorageTable:
    """Gives each storage its number in the order of first use, and keeps it alive."""

    def __init__(self) -> None:
        self.storages: list[UntypedStorage] = []
        self._numbers: dict[tuple[int, str], int] = {}

    def add(self, tensor: Tensor) -> TensorRef | RebuildRef:
        """The reference by which `tensor` goes into the file; its storage joins the table."""
        kind = type(tensor)
        if kind is not Tensor and kind is not Parameter:
            tensor = self._plain(tensor)
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
            return self._rebuild(tensor)
        if tensor.is_meta:
            raise TypeError("a tensor on the meta device, which has no data; materialise it")
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        return TensorRef(
            self._storage(tensor.untyped_storage(), tensor.dtype),
            int(tensor.storage_offset()),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.requires_grad,
            kind is Parameter,
        )

    @property
    def num_bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages)

    def _storage(self, storage: UntypedStorage, dtype: torch.dtype) -> StorageRef:
        name = storage_class_name(dtype)
        identity = (storage._cdata, name)
        number = self._numbers.setdefault(identity, len(self.storages))
        if number == len(self.storages):
            self.storages.append(storage)
        num_bytes = storage.nbytes()
        return StorageRef(
            number, dtype, num_bytes if name == "UntypedStorage" else num_bytes // dtype.itemsize
        )

    def _plain(self, tensor: Tensor) -> Tensor:
        try:
            if is_sharded(tensor):  # one after the other: together they may not fit the device
                return whole(tensor).detach().cpu()
            plain: Tensor = tensor.detach().as_subclass(Tensor)
            if plain.layout is torch.strided and not plain.is_meta:
                plain.untyped_storage().data_ptr()  # fails for one that just wraps others
        except (NotImplementedError, RuntimeError) as error:
            raise TypeError(
                f"a tensor of type {type(tensor).__qualname__}, which has no plain form "
                f"({_first_line(error)}); turn it into plain tensors"
            ) from error
        return plain.detach()

    def _rebuild(self, tensor: Tensor) -> RebuildRef:
        function, arguments = tensor.detach().__reduce_ex__(2)[:2]  # type: ignore[no-untyped-call]
        return RebuildRef(function, self._arguments(arguments))

    def _arguments(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.add(value)
        if isinstance(value, torch.storage.TypedStorage):
            return self._storage(value._untyped_storage, value.dtype)
        if type(value) is tuple:
            return tuple(self._arguments(entry) for entry in value)
        if type(value) is list:
            return [self._arguments(entry) for entry in value]
        return value


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:100]
