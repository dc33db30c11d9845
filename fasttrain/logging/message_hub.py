"""The board on which the parts of a run leave scalars and notes for each other."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from logging import WARNING
from typing import Any

import numpy as np
from torch import Tensor

from fasttrain.core.pending import Later, PendingFlush
from fasttrain.core.ring import read_scalar
from fasttrain.core.store import ScalarStore
from fasttrain.core.transfer import Reader
from fasttrain.logging.buffer_view import BufferView, snapshot
from fasttrain.logging.history_buffer import HistoryBuffer
from fasttrain.logging.logger import print_log
from fasttrain.utils.manager import ManagerMixin


class MessageHub(ManagerMixin):
    """Scalars with their history, and notes that the next update overwrites, by name.

    A tensor on a device is not read when it is put in, but with all others at the next flush;
    reading a buffer flushes first.

    Args:
        name: the name that the hub is kept under.
        log_scalars: buffers to start with.
        runtime_info: notes to start with.
        resumed_keys: for names of the two, whether they are part of a saved state.
        reader: what counts as "on a device"; for tests and unusual devices.

    Attributes:
        state_limit: the number of last entries of each scalar in a saved state; `None` for all.

    Raises:
        TypeError: one of the three is no dict.
        AssertionError: a scalar is no HistoryBuffer, or a resumed key is unknown.
    """

    # More than any usual log window, whatever a run's length.
    state_limit: int | None = 2000

    def __init__(
        self,
        name: str,
        log_scalars: dict[str, HistoryBuffer] | None = None,
        runtime_info: dict[str, Any] | None = None,
        resumed_keys: dict[str, bool] | None = None,
        *,
        reader: Reader | None = None,
    ) -> None:
        super().__init__(name)
        scalars = self._parse_input("log_scalars", log_scalars)
        self._runtime_info = self._parse_input("runtime_info", runtime_info)
        self._resumed_keys = self._parse_input("resumed_keys", resumed_keys)
        for value in scalars.values():
            assert isinstance(value, HistoryBuffer), (
                f"The type of log_scalars' value must be HistoryBuffer, but got {type(value)}"
            )
        for key in self._resumed_keys:
            assert key in scalars or key in self._runtime_info, (
                "Key in `resumed_keys` must contained in `log_scalars` or `runtime_info`, "
                f"but got {key}"
            )
        self._store = ScalarStore(reader=reader, on_new=self._show)
        self._buffers = BufferView(self._store, scalars)
        # prefix -> short names that are known to be resumed: the hot path's pass. It holds as
        # long as there are as many resumed keys as when it was given.
        self._checked: dict[str, set[str]] = {}
        self._num_checked = 0

    def _show(self, name: str) -> None:
        self._buffers.show(name)

    @classmethod
    def get_current_instance(cls) -> MessageHub:
        """The hub made last; one named "mmengine" when there is none yet."""
        if not cls._instance_dict:
            cls.get_instance("mmengine")
        hub: MessageHub = super().get_current_instance()
        return hub

    # --- scalars -----------------------------------------------------------------------------
    @property
    def _log_scalars(self) -> OrderedDict[str, HistoryBuffer]:
        return self._buffers

    @_log_scalars.setter
    def _log_scalars(self, buffers: Mapping[str, HistoryBuffer]) -> None:
        self._buffers.clear()
        self._buffers.update(buffers)

    def update_scalar(
        self,
        key: str,
        value: int | float | np.ndarray | Tensor,
        count: int | float = 1,
        resumed: bool = True,
    ) -> None:
        """Append one scalar; a device tensor waits there for the next flush.

        Raises:
            AssertionError: the value is no single number, or `resumed` is not as it was before.
            TypeError: the count is no number.
        """
        if self._resumed_keys.get(key) is not resumed:
            self._set_resumed_keys(key, resumed)
        if type(count) is not int:
            count = _read_count(count)
        try:
            self._store.put(key, value, count)
        except (TypeError, ValueError) as e:
            raise AssertionError(f"{key}: {e}") from e

    def update_scalars(self, log_dict: dict[str, Any], resumed: bool = True) -> None:
        """Append many scalars; a value may be a dict of `value` and `count`.

        Raises:
            AssertionError: as `update_scalar`, or a dict has no `value`.
        """
        assert isinstance(log_dict, dict), f"`log_dict` must be a dict!, but got {type(log_dict)}"
        self.update_prefixed("", log_dict, resumed)

    def update_prefixed(self, prefix: str, log_dict: dict[str, Any], resumed: bool = True) -> None:
        """As `update_scalars`, under the names `prefix + key`; the cheapest way per iteration.

        Args:
            log_dict: a dict, or whatever else has `items`.
        """
        if not isinstance(log_dict, dict):
            log_dict = dict(log_dict.items())
        checked = self._checked.get(prefix)
        if (
            checked is None
            or resumed is not True
            or len(self._resumed_keys) != self._num_checked
            or not log_dict.keys() <= checked
        ):
            self._check_names(prefix, log_dict, resumed)
        try:
            self._store.put_many(log_dict, prefix)
        except (TypeError, ValueError) as e:
            raise AssertionError(str(e)) from e

    def _check_names(self, prefix: str, log_dict: dict[str, Any], resumed: bool) -> None:
        """Check each name's flag and form before anything is put in."""
        if len(self._resumed_keys) != self._num_checked:
            self._checked.clear()
        for key, value in log_dict.items():
            if isinstance(value, dict):
                assert "value" in value, f"value must be defined in {value}, the entry {key!r}"
            self._set_resumed_keys(f"{prefix}{key}" if prefix else key, resumed)
        if resumed:
            self._checked.setdefault(prefix, set()).update(log_dict)
        self._num_checked = len(self._resumed_keys)

    def _get_valid_value(self, value: Tensor | np.ndarray | np.number | int | float) -> int | float:
        """The single Python number that `value` holds (sync point for a device tensor)."""
        try:
            return read_scalar(value)
        except (TypeError, ValueError) as e:
            raise AssertionError(str(e)) from e

    # --- notes -------------------------------------------------------------------------------
    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        """Set a note.

        Raises:
            AssertionError: `resumed` is not as it was before.
        """
        if self._resumed_keys.get(key) is not resumed:
            self._set_resumed_keys(key, resumed)
        self._runtime_info[key] = value

    def update_info_dict(self, info_dict: dict[str, Any], resumed: bool = True) -> None:
        """Set many notes."""
        assert isinstance(info_dict, dict), (
            f"`info_dict` must be a dict!, but got {type(info_dict)}"
        )
        for key, value in info_dict.items():
            self.update_info(key, value, resumed=resumed)

    def pop_info(self, key: str, default: Any = None) -> Any:
        """Remove a note and return it, or `default` when there is none."""
        return self._runtime_info.pop(key, default)

    def get_info(self, key: str, default: Any = None) -> Any:
        """The note itself, not a copy, or `default` when there is none."""
        return self._runtime_info.get(key, default)

    def _set_resumed_keys(self, key: str, resumed: bool) -> None:
        before = self._resumed_keys.setdefault(key, resumed)
        assert before == resumed, (
            f"{key} used to be {before}, but got {resumed} now. "
            "resumed keys cannot be modified repeatedly."
        )

    @property
    def log_scalars(self) -> OrderedDict[str, HistoryBuffer]:
        """All buffers by name; not copies."""
        return self._buffers

    @property
    def runtime_info(self) -> OrderedDict[str, Any]:
        """All notes by name; not copies."""
        return self._runtime_info

    def get_scalar(self, key: str) -> HistoryBuffer:
        """The buffer of one scalar; not a copy.

        Raises:
            KeyError: there is none of this name.
        """
        if key not in self._buffers:
            raise KeyError(
                f"{key} is not found in Messagehub.log_buffers: instance name is: "
                f"{self.instance_name}"
            )
        return self._buffers[key]

    # --- what waits on a device --------------------------------------------------------------
    @property
    def store(self) -> ScalarStore:
        """The store that the scalars are in."""
        return self._store

    @property
    def pending(self) -> bool:
        """Whether a scalar waits for a device."""
        return self._store.pending

    def update_later(self, key: str, value: Later, resumed: bool = True) -> None:
        """Append a scalar that is resolved at the next flush, such as a lap of a device's clock."""
        if self._resumed_keys.get(key) is not resumed:
            self._set_resumed_keys(key, resumed)
        self._store.put_later(key, value)

    def flush(self) -> None:
        """Fetch what waits on a device (sync point when something does)."""
        self._store.flush()

    def begin_flush(self, on_done: Callable[[], None] | None = None) -> PendingFlush:
        """Start fetching what waits; see `ScalarStore.begin_flush`."""
        return self._store.begin_flush(on_done)

    # --- saving ------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Copies of all that is to be resumed, of each scalar the last `state_limit` entries.

        Returns:
            `log_scalars`, `runtime_info` and `resumed_keys`.
        """
        self._store.settle()
        scalars: OrderedDict[str, HistoryBuffer] = OrderedDict()
        info: OrderedDict[str, Any] = OrderedDict()
        for key, buffer in snapshot(self._buffers):
            if self._resumed_keys.get(key, False):
                scalars[key] = HistoryBuffer()
                scalars[key].load_state_dict(buffer.state_dict(self.state_limit))
        for key, value in snapshot(self._runtime_info):
            if self._resumed_keys.get(key, False):
                info[key] = _copied(key, value)
        return {
            "log_scalars": scalars,
            "runtime_info": info,
            "resumed_keys": OrderedDict(snapshot(self._resumed_keys)),
        }

    def load_state_dict(self, state_dict: MessageHub | dict[str, Any]) -> None:
        """Take over copies of scalars, notes and resumed keys.

        Args:
            state_dict: as `state_dict` returns it (its buffers may also be dicts of `values` and
                `counts`), or another hub, of which all is copied.
        Raises:
            AssertionError: one of the three parts is missing.
        """
        if isinstance(state_dict, dict):
            for part in ("log_scalars", "runtime_info", "resumed_keys"):
                assert part in state_dict, (
                    f"The loaded `state_dict` of `MessageHub` must contain key: `{part}`"
                )
            self._load_dict(state_dict)
        else:
            self._load_dict(
                {
                    "log_scalars": state_dict._log_scalars,
                    "runtime_info": state_dict._runtime_info,
                    "resumed_keys": state_dict._resumed_keys,
                }
            )

    def _load_dict(self, state: dict[str, Any]) -> None:
        for key, saved in state["log_scalars"].items():
            buffer = _restored(saved)
            if buffer is None:
                _warn(f"{key} in message_hub is not HistoryBuffer, just skip resuming it.")
            else:
                self._buffers[key] = buffer
        for key, value in state["runtime_info"].items():
            self._runtime_info[key] = _copied(key, value)
        for key, resumed in state["resumed_keys"].items():
            if key in self._buffers or key in self._runtime_info:
                self._resumed_keys[key] = resumed
            elif resumed:
                _warn(
                    f"resumed key: {key} is not defined in message_hub, "
                    "just skip resuming this key."
                )
        self._checked.clear()

    def _parse_input(self, name: str, value: Any) -> OrderedDict[str, Any]:
        """A dict argument as an ordered dict of our own; `None` as an empty one."""
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"{name} should be a dict or `None`, but got {type(value)}")
        return OrderedDict(value or {})

    def __getstate__(self) -> dict[str, Any]:
        self._store.settle()
        return {
            "_instance_name": self._instance_name,
            "_log_scalars": OrderedDict(snapshot(self._buffers)),
            "_runtime_info": self._runtime_info,
            "_resumed_keys": self._resumed_keys,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        MessageHub.__init__(self, state["_instance_name"], state["_log_scalars"])
        self._runtime_info = state["_runtime_info"]
        self._resumed_keys = state["_resumed_keys"]


def _read_count(count: Any) -> float:
    try:
        return read_scalar(count)
    except (TypeError, ValueError) as e:
        raise TypeError(f"count must be a number, but got {count!r}") from e


def _restored(saved: Any) -> HistoryBuffer | None:
    """A new buffer from a buffer of any class or a dict of tensors; `None` if it is neither."""
    buffer = HistoryBuffer()
    if isinstance(saved, HistoryBuffer):
        buffer.load_state_dict(saved.state_dict())
    elif isinstance(saved, dict) and {"values", "counts"} <= saved.keys():
        buffer.load_state_dict(saved)
    elif hasattr(saved, "_log_history") and hasattr(saved, "_count_history"):
        return HistoryBuffer(saved._log_history, saved._count_history)
    else:
        return None
    return buffer


def _copied(key: str, value: Any) -> Any:
    """A deep copy, or the value itself with a warning when it cannot be copied."""
    try:
        return copy.deepcopy(value)
    except Exception as e:  # whatever a foreign __deepcopy__ raises
        _warn(f"{key} in message_hub cannot be copied, just return its reference. ({e})")
        return value


def _warn(message: str) -> None:
    print_log(message, logger="current", level=WARNING)
