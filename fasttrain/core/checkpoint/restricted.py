"""Load a checkpoint without running what it says: only an explicit list of classes is admitted."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import torch

from fasttrain.core.checkpoint.stand_ins import PickledObject, admitted_names, resolve


class CheckpointError(RuntimeError):
    """A file that is not a whole checkpoint: missing parts, damaged, or of an unknown kind."""


class UnsafeCheckpointError(pickle.UnpicklingError):
    """A checkpoint that asks for a class or function which a restricted load does not admit."""


def load(
    path: str | os.PathLike[str] | IO[bytes],
    map_location: Any = "cpu",
    *,
    weights_only: bool = True,
    mmap: bool = False,
    classes: Mapping[str, type[PickledObject]] | None = None,
) -> Any:
    """Load a checkpoint file: torch's zip and legacy formats, or a plain pickle of arrays.

    Args:
        path: a file name or a seekable binary file.
        map_location: as `torch.load` takes it.
        weights_only: False unpickles freely and so RUNS what the file says; only for trusted files.
        mmap: map the tensors instead of reading them (zip format, file names only).
        classes: stand-ins for foreign classes by full name, beyond numpy's plain arrays.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeCheckpointError: the file asks for something that is not admitted; names it.
        CheckpointError: the file is damaged or no checkpoint.
    """
    if not isinstance(path, str | os.PathLike):
        return _load_open(path, "the open file", map_location, weights_only, classes or {})
    if not os.path.isfile(path):
        raise FileNotFoundError(f"checkpoint {os.fspath(path)!r} is not a file that exists")
    with open(path, "rb") as file:
        if not mmap:
            name = os.fspath(path)
            return _load_open(file, name, map_location, weights_only, classes or {})
    return _guarded(
        lambda: torch.load(os.fspath(path), map_location, weights_only=weights_only, mmap=True),
        os.fspath(path),
        admitted_names(classes or {}) if weights_only else {},
    )


def _load_open(
    file: IO[bytes],
    name: str,
    map_location: Any,
    weights_only: bool,
    classes: Mapping[str, type[PickledObject]],
) -> Any:
    start = file.tell()
    head = file.read(16)
    file.seek(start)
    admitted = admitted_names(classes)
    if not head:
        raise CheckpointError(f"checkpoint {name!r} is empty")
    is_zip = head[:4] == b"PK\x03\x04"
    if not is_zip and not _is_torch_legacy(file, start):
        return _guarded(lambda: _load_plain_pickle(file, admitted, weights_only), name, {})
    return _guarded(
        lambda: torch.load(file, map_location, weights_only=weights_only),
        name,
        admitted if weights_only else {},
    )


_DAMAGE = (
    RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError,
    OverflowError, MemoryError, AssertionError, zipfile.BadZipFile,
)  # fmt: skip


def _guarded(read: Callable[[], Any], name: str, admitted: Mapping[str, Any]) -> Any:
    """Run `read` with the admitted names in force and turn its errors into clear ones."""
    pairs = [(stand_in, full_name) for full_name, stand_in in admitted.items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(pairs):  # type: ignore[arg-type]
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
            return resolve(read())
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"checkpoint {name!r}: {error}") from error
    except pickle.UnpicklingError as error:
        raise _explain(error, name) from error
    except _DAMAGE as error:
        if _is_about_devices(error):
            raise
        raise CheckpointError(
            f"checkpoint {name!r} is damaged or no checkpoint ({type(error).__name__}: "
            f"{_first_line(error)}); take another file, or verify it with `fasttrain verify`"
        ) from error


def _is_about_devices(error: BaseException) -> bool:
    """Whether the file is fine, but its tensors cannot go where `map_location` or the file says."""
    told = ("don't know how to restore data location", "Attempting to deserialize object on")
    return isinstance(error, RuntimeError) and str(error).startswith(told)


def _explain(error: pickle.UnpicklingError, name: str) -> Exception:
    text = str(error)
    match = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"class <?class '?([\w.]+)", text)
    if match is None and "nsupported" not in text and "Can only" not in text:
        return CheckpointError(
            f"checkpoint {name!r} is damaged or no checkpoint (UnpicklingError: "
            f"{_first_line(error)}); take another file"
        )
    what = match.group(1) if match else _first_line(error)
    return UnsafeCheckpointError(f"checkpoint {name!r}: {_refusal(what)}")


def _refusal(what: str) -> str:
    return (
        f"refused to unpickle {what!r}: it is not on the list of admitted classes, and unpickling "
        "it could run code. Load with weights_only=False only if you trust the file's author"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no details"


def _is_torch_legacy(file: IO[bytes], start: int) -> bool:
    """Whether a non-zip file starts with torch's magic number or is torch's oldest tar format."""
    head = file.read(512)
    file.seek(start)
    magic = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
    return magic in head[:32] or head[257:262] == b"ustar"


_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler whose only names are the admitted ones."""

    def __init__(self, file: IO[bytes], admitted: Mapping[str, Any], encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        builtin = {"builtins.set": set, "_codecs.encode": _Encode}
        self._admitted = {**admitted, **builtin}

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{_PYTHON2.get(module, module)}.{name}"
        if full_name not in self._admitted:
            raise UnsafeCheckpointError(_refusal(full_name))
        return self._admitted[full_name]

    def persistent_load(self, pid: Any) -> Any:
        raise CheckpointError(f"persistent object {pid!r} in a plain pickle")


class _Encode:
    """Stands for the codec call by which old protocols write bytes: latin1 only."""

    __slots__ = ()

    def __new__(cls, text: str = "", codec: str = "latin1") -> Any:
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a codec has no state")


def _load_plain_pickle(file: IO[bytes], admitted: Mapping[str, Any], weights_only: bool) -> Any:
    if not weights_only:
        return pickle.load(file, encoding="latin1")
    return _PlainUnpickler(file, admitted, "latin1").load()
