"""CfgNode: a config tree with attribute access, freezing and strict merging; `_BASE_` in files."""

from __future__ import annotations

import ast
import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

BASE_KEY = "_BASE_"
_FROZEN = "__frozen__"
_NEW_ALLOWED = "__new_allowed__"


class CfgNode(dict):
    """A dict whose keys are attributes too; mappings in it become CfgNodes.

    Merging only changes keys that are there: an unknown one is an error that names the nearest.

    Args:
        init_dict: the first content; copied.
        new_allowed: let merging add keys to this node.
    """

    def __init__(
        self, init_dict: Mapping[str, Any] | None = None, *, new_allowed: bool = False
    ) -> None:
        super().__init__()
        self.__dict__[_FROZEN] = False
        self.__dict__[_NEW_ALLOWED] = new_allowed
        for key, value in (init_dict or {}).items():
            self[key] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as e:
            raise AttributeError(f"config has no key {name!r}{_hint(name, self)}") from e

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        self._check_changeable(name)
        is_plain = isinstance(value, Mapping) and not isinstance(value, CfgNode)
        super().__setitem__(name, type(self)(value) if is_plain else value)

    def __delitem__(self, name: str) -> None:
        self._check_changeable(name)
        super().__delitem__(name)

    def _check_changeable(self, name: str) -> None:
        if self.__dict__.get(_FROZEN, False):
            raise AttributeError(
                f"Attempted to set {name!r}, but the config is frozen; call defrost() first, or "
                "change a clone()"
            )

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        self._check_changeable(key)
        return super().pop(key, *default)

    def freeze(self) -> None:
        """Refuse changes from now on, here and below."""
        self._set_frozen(True)

    def defrost(self) -> None:
        """Allow changes again."""
        self._set_frozen(False)

    def is_frozen(self) -> bool:
        return bool(self.__dict__[_FROZEN])

    def is_new_allowed(self) -> bool:
        """Whether merging may add keys to this node."""
        return bool(self.__dict__[_NEW_ALLOWED])

    def set_new_allowed(self, is_new_allowed: bool) -> None:
        """Let merging add keys, here and below, or not."""
        self.__dict__[_NEW_ALLOWED] = is_new_allowed
        for value in self.values():
            if isinstance(value, CfgNode):
                value.set_new_allowed(is_new_allowed)

    def _set_frozen(self, frozen: bool) -> None:
        self.__dict__[_FROZEN] = frozen
        for value in self.values():
            if isinstance(value, CfgNode):
                value._set_frozen(frozen)

    def clone(self) -> CfgNode:
        """A deep copy with the same freezing."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict) -> CfgNode:
        copied = {key: copy.deepcopy(value, memo) for key, value in self.items()}
        return _rebuild(type(self), copied, self.is_frozen(), self.is_new_allowed())

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), dict(self), self.is_frozen(), self.is_new_allowed())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({super().__repr__()})"

    def dump(self, **kwargs: Any) -> str:
        """YAML text that `merge_from_file` reads back."""
        return yaml.safe_dump(_plain(self), **{"sort_keys": True, **kwargs})

    def merge_from_file(self, filename: str | Path, allow_unsafe: bool = False) -> None:
        """Merge a YAML file over this config; its `_BASE_` is merged before it.

        Args:
            filename: a YAML file.
            allow_unsafe: accepted for compatibility; only plain YAML is ever read.
        """
        self.merge_from_other_cfg(self.load_yaml_with_base(filename, allow_unsafe))

    @classmethod
    def load_yaml_with_base(cls, filename: str | Path, allow_unsafe: bool = False) -> CfgNode:
        """Read a YAML file and the files that its `_BASE_` names, the nearest winning."""
        return cls(_read_with_base(Path(filename), ()))

    def merge_from_other_cfg(self, other: Mapping[str, Any]) -> None:
        """Merge a config, known or unknown to us, as long as it is a mapping."""
        self._merge(other, "")

    def merge_from_list(self, options: Sequence[Any]) -> None:
        """Merge `["KEY.SUB", value, ...]`; strings are read as Python literals where they are."""
        if len(options) % 2:
            raise ValueError(
                f"expected key and value in turn, got {len(options)} entries: {options}"
            )
        for name, value in zip(options[::2], options[1::2], strict=True):
            tree: Any = _literal(value)
            for part in reversed(str(name).split(".")):
                tree = {part: tree}
            self._merge(tree, "")

    def _merge(self, other: Mapping[str, Any], path: str) -> None:
        for key, value in other.items():
            full = f"{path}{key}"
            if key not in self:
                if self.is_new_allowed():
                    self[key] = copy.deepcopy(value)
                    continue
                raise KeyError(f"Non-existent config key: {full}{_hint(key, self)}")
            old = self[key]
            if isinstance(old, CfgNode):
                if not isinstance(value, Mapping):
                    raise ValueError(f"{full} is a section, got {value!r} for it")
                old._merge(value, f"{full}.")
            else:
                self[key] = _matching(copy.deepcopy(value), old, full)


def _rebuild(cls: type[CfgNode], content: dict, frozen: bool, new_allowed: bool = False) -> CfgNode:
    node = cls(content, new_allowed=new_allowed)
    node._set_frozen(frozen)
    return node


def _hint(name: str, node: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), list(map(str, node)), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else f"; there are: {', '.join(map(str, node))}"


def _plain(value: Any) -> Any:
    """What YAML has a form for: dicts, lists, strings, numbers, None; else the `repr`."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    return _plain(vars(value)) if isinstance(value, SimpleNamespace) else repr(value)


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _matching(value: Any, old: Any, name: str) -> Any:
    """`value` in the type of `old`: lists and tuples, and int for float, go into each other.

    A string stands for the Python literal that it holds, where `old` is no string: YAML has no form
    for tuples, and reads 1e-4 as a string.
    """
    if old is None or value is None or type(value) is type(old):
        return value
    if isinstance(value, str):
        value = _literal(value)
        if type(value) is type(old):
            return value
    if isinstance(old, list | tuple) and isinstance(value, list | tuple):
        return type(old)(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, bool) != isinstance(value, bool) or not isinstance(value, type(old)):
        raise ValueError(
            f"{name} must be of type {type(old).__name__}, got {value!r} ({type(value).__name__})"
        )
    return value


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ValueError(f"{BASE_KEY} goes in a circle: {' -> '.join(map(str, (*seen, path)))}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as e:
        raise ValueError(f"{path} is no valid YAML: {e}") from e
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(content).__name__}")
    bases = content.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        where = Path(base).expanduser()
        _overlay(merged, _read_with_base(path.parent / where, (*seen, path)))
    return _overlay(merged, content)


def _overlay(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _overlay(below[key], value)
        else:
            below[key] = value
    return below


_MISSING = object()


def read(cfg: Any, path: str, default: Any = None) -> Any:
    """The value at `"SECTION.KEY"` of any config with attribute or item access, or `default`."""
    for name in path.split("."):
        if isinstance(cfg, Mapping):
            found = cfg.get(name, _MISSING)
        else:
            found = getattr(cfg, name, _MISSING)
        if found is _MISSING:
            return default
        cfg = found
    return cfg


def as_config(cfg: Any) -> Any:
    """`cfg` itself; a plain dict, which has no attributes, as a CfgNode."""
    return CfgNode(cfg) if type(cfg) is dict else cfg


def changed(cfg: Any, values: Mapping[str, Any]) -> Any:
    """A copy of any config with other values at some `"SECTION.KEY"`s, frozen as `cfg` is."""
    copied = copy.deepcopy(cfg)
    frozen = hasattr(cfg, "is_frozen") and cfg.is_frozen()
    if frozen:
        copied.defrost()
    for path, value in values.items():
        *sections, key = path.split(".")
        node = read(copied, ".".join(sections)) if sections else copied
        if isinstance(node, Mapping):
            node[key] = value  # type: ignore[index]
        else:
            setattr(node, key, value)
    if frozen:
        copied.freeze()
    return copied


def text_of(cfg: Any) -> str:
    """Any config as YAML; what YAML has no form for stands as its `repr`."""
    if isinstance(cfg, CfgNode):
        return cfg.dump()
    if hasattr(cfg, "to_dict"):
        cfg = cfg.to_dict()
    return yaml.safe_dump(_plain(cfg), sort_keys=True)
