"""Stand-ins for what a lazy config imports; the import happens when they are built."""

from __future__ import annotations

import importlib
from typing import Any


class _Lazy:
    """What both stand-ins share: attributes give further stand-ins, calls are refused."""

    location: str | None

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def dotted_path(self) -> str:
        """The import path, such as `"torch.optim.SGD"`; a registry resolves it too."""
        raise NotImplementedError

    def build(self) -> Any:
        """Import and return what this stands for."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> LazyAttr:
        # Special names are asked for by copy, pickle and others that want to hear "no".
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{self.dotted_path!r} is not imported yet and has no {name!r}")
        return LazyAttr(name, self, self.location)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"{self.dotted_path!r} cannot be called in a config ({self.location}), since it is "
            f"imported only when the config is used; write dict(type={self.name}, ...) instead"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lazy) and self.dotted_path == other.dotted_path

    def __hash__(self) -> int:
        return hash(self.dotted_path)

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


class LazyObject(_Lazy):
    """Stands for a module, or for a name imported from a module.

    Args:
        module: the module's path; of several (`import a.b; import a.c`) the first package counts,
            and all are imported by `build`.
        imported: the name imported from the module; None stands for the module itself.
        location: where the config imports it, as `"file, line 3"`.
    """

    def __init__(
        self,
        module: str | list[str] | tuple[str, ...],
        imported: str | None = None,
        location: str | None = None,
    ) -> None:
        if not isinstance(module, str | list | tuple):
            raise TypeError(f"module should be `str`, `list`, or `tuple`, but got {type(module)}")
        if not (imported is None or isinstance(imported, str)):
            raise TypeError(f"imported should be `str` or None, but got {type(imported)}")
        self._module = module
        self._imported = imported
        self.location = location

    @property
    def module(self) -> str:
        """The module's path; of several modules, their common package."""
        return self._module if isinstance(self._module, str) else self._module[0].split(".")[0]

    @property
    def name(self) -> str:
        return self.module if self._imported is None else self._imported

    @property
    def dotted_path(self) -> str:
        return self.module if self._imported is None else f"{self.module}.{self._imported}"

    def build(self) -> Any:
        paths = [self._module] if isinstance(self._module, str) else self._module
        try:
            for path in paths:
                importlib.import_module(path)
            module = importlib.import_module(self.module)
        except Exception as e:
            raise type(e)(f"Failed to import {self._module} in {self.location} for {e}") from e
        return module if self._imported is None else _attribute_of(module, self._imported, self)

    def __reduce__(self) -> Any:
        return type(self), (self._module, self._imported, self.location)


class LazyAttr(_Lazy):
    """Stands for an attribute of what another stand-in stands for.

    Args:
        name: the attribute's name.
        source: whose attribute it is.
        location: where the config uses it.
    """

    def __init__(
        self, name: str, source: LazyObject | LazyAttr | _Lazy, location: str | None = None
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name should be `str`, but got {type(name)}")
        if not isinstance(source, _Lazy):
            raise TypeError(f"source should be LazyObject or LazyAttr, but got {type(source)}")
        self._name = name
        self.source = source
        self.location = location

    @property
    def module(self) -> str:
        """The import path of what the attribute belongs to."""
        return self.source.dotted_path

    @property
    def name(self) -> str:
        return self._name

    @property
    def dotted_path(self) -> str:
        return f"{self.module}.{self._name}"

    def build(self) -> Any:
        return _attribute_of(self.source.build(), self._name, self)

    def __reduce__(self) -> Any:
        return type(self), (self._name, self.source, self.location)


def _attribute_of(owner: Any, name: str, lazy: LazyObject | LazyAttr) -> Any:
    """Return `owner.name`; of a package also a submodule that nothing has imported yet."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        try:
            return importlib.import_module(lazy.dotted_path)
        except ModuleNotFoundError as e:
            if e.name is None or not lazy.dotted_path.startswith(e.name):
                raise
            raise ImportError(
                f"Failed to import {name} from {lazy.module} in {lazy.location}"
            ) from error
