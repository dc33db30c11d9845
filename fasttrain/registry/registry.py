"""A registry maps names to classes and functions, and builds objects from configs."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

from fasttrain.utils.imports import get_object_from_string
from fasttrain.utils.package_utils import PROJECTS

from .build_functions import build_from_cfg
from .default_scope import DefaultScope
from .lookup import import_scope

logger = logging.getLogger("fasttrain.registry")

_OWN_PACKAGE = __name__.partition(".")[0]
_INSTALLED_PEER = "mmengine"


def _package_of(module: Any) -> str:
    return str(getattr(module, "__module__", None) or "").partition(".")[0]


def _is_stand_in(module: Any, other: Any) -> bool:
    """Whether `module` is this project's version of `other`, a class of an installed mmengine."""
    return (
        _package_of(module) == _OWN_PACKAGE
        and _package_of(other) == _INSTALLED_PEER
        and getattr(module, "__qualname__", 0) == getattr(other, "__qualname__", 1)
    )


class Registry:
    """Maps names to classes and functions.

    Registries of one kind form a tree: a package's registry hangs below the root of that kind,
    under the package's scope. A name is looked up in the registry itself, then in its parents;
    `"mmdet.ResNet"` asks the child with that scope, of the registry itself or else of its root,
    and deeper ones are reached by `"mmdet.sub.ResNet"`.

    A class of this package and the one of an installed mmengine that it stands for, known by its
    name, do not collide: this package's class is the registered one, whichever comes first.

    Args:
        name: what is registered, such as `"model"`.
        build_func: called as `build_func(cfg, registry=self, ...)` by `build`; the parent's when
            not given, and `build_from_cfg` without a parent.
        parent: the registry above this one.
        scope: the key among the parent's children; the caller's top-level package when not given.
        locations: modules that register into this registry; imported at the first look-up.
    """

    def __init__(
        self,
        name: str,
        build_func: Callable[..., Any] | None = None,
        parent: Registry | None = None,
        scope: str | None = None,
        locations: list[str] = [],  # noqa: B006  (never changed; the signature users know)
    ) -> None:
        self._name = name
        self._module_dict: dict[str, Any] = {}
        self._children: dict[str, Registry] = {}
        self._locations = list(locations)
        self._imported = False

        assert scope is None or isinstance(scope, str), f"scope should be a str, but got {scope!r}"
        self._scope = self.infer_scope() if scope is None else scope

        assert parent is None or isinstance(parent, Registry), (
            f"parent should be a Registry or None, but got {parent!r}"
        )
        self.parent: Registry | None = None
        if parent is not None:
            parent._add_child(self)
            self.parent = parent

        self.build_func: Callable[..., Any]
        if build_func is not None:
            self.build_func = build_func
        else:
            self.build_func = build_from_cfg if parent is None else parent.build_func

    def __len__(self) -> int:
        return len(self._module_dict)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __repr__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"Registry of {self._name}")
        table.add_column("Names")
        table.add_column("Objects")
        for name, module in sorted(self._module_dict.items()):
            table.add_row(name, str(module))
        console = Console(color_system=None, markup=False, highlight=False)
        with console.capture() as capture:
            console.print(table, end="")
        return capture.get()

    @property
    def name(self) -> str:
        """What is registered here."""
        return self._name

    @property
    def scope(self) -> str:
        """The key under which the registry is found from its root."""
        return self._scope

    @property
    def module_dict(self) -> dict[str, Any]:
        """Registered name -> class or function."""
        return self._module_dict

    @property
    def children(self) -> dict[str, Registry]:
        """Scope -> registry right below this one."""
        return self._children

    @property
    def root(self) -> Registry:
        """The top of the registry's tree."""
        return self._get_root_registry()

    @staticmethod
    def infer_scope() -> str:
        """The top-level package of the code that called the caller of this method."""
        module = sys._getframe(2).f_globals.get("__name__", "")
        package = module.partition(".")[0]
        if not package or package == "importlib":
            logger.warning(
                'set scope as "mmengine" when scope can not be inferred. You can silence this '
                'warning by passing a "scope" argument to Registry like '
                '`Registry(name, scope="toy")`'
            )
            return "mmengine"
        return str(package)

    @staticmethod
    def split_scope_key(key: str) -> tuple[str | None, str]:
        """Split `"scope.name"` at its first dot; the scope is None when there is no dot."""
        scope, dot, rest = key.partition(".")
        return (scope, rest) if dot else (None, key)

    def _get_root_registry(self) -> Registry:
        root = self
        while root.parent is not None:
            root = root.parent
        return root

    def _search_child(self, scope: str) -> Registry | None:
        """Depth-first search for the registry with `scope`, from this one down."""
        if self._scope == scope:
            return self
        for child in self._children.values():
            if (found := child._search_child(scope)) is not None:
                return found
        return None

    def _add_child(self, registry: Registry) -> None:
        assert isinstance(registry, Registry), f"expected a Registry, but got {type(registry)}"
        assert registry.scope not in self.children, (
            f"scope {registry.scope} exists in {self.name} registry"
        )
        self.children[registry.scope] = registry

    @contextmanager
    def switch_scope_and_registry(self, scope: str | None) -> Generator[Registry, None, None]:
        """Make `scope` the default scope within the context and give its registry.

        With None the default scope in force is taken. When no registry of the tree has that
        scope, a warning is logged and this registry is given.
        """
        with DefaultScope.overwrite_default_scope(scope):
            current = DefaultScope.get_current_instance()
            yield self if current is None else self._registry_of_scope(current.scope_name)

    def _registry_of_scope(self, scope: str) -> Registry:
        root = self._get_root_registry()
        found = root._search_child(scope)
        if found is None and import_scope(scope):
            found = root._search_child(scope)
        if found is None:
            logger.warning(
                'Failed to search registry with scope "%s" in the "%s" registry tree. As a '
                'workaround, the current "%s" registry in "%s" is used to build instance. This '
                "may cause unexpected failure when running the built modules. Please check "
                'whether "%s" is a correct scope, or whether the registry is initialized.',
                scope,
                root.name,
                self.name,
                self.scope,
                scope,
            )
            return self
        return found

    def import_from_location(self) -> None:
        """Import, once, the modules that register into this registry."""
        if self._imported:
            return
        self._imported = True  # before the imports: they may look something up here themselves
        try:
            for location in self._locations:
                importlib.import_module(location)
            if not self._locations and self._scope in PROJECTS:
                register = get_object_from_string(f"{self._scope}.utils.register_all_modules")
                if register is not None:
                    register(False)
        except BaseException:
            self._imported = False
            raise

    def get(self, key: str) -> Any:
        """Return what `key` stands for, or None.

        Args:
            key: a registered name, `"scope.name"`, or a dotted import path.
        """
        if not isinstance(key, str):
            raise TypeError(f"The key argument of `Registry.get` must be a str, got {type(key)}")
        scope, name = self.split_scope_key(key)
        self.import_from_location()
        if scope is None:
            found = self._get_here_or_above(name)
        elif scope in (self._scope, self.root._scope):
            found = self._get_own(scope, name)
        else:
            found = self._get_in_scope(scope, name)
        return get_object_from_string(key) if found is None else found

    def _get_here_or_above(self, name: str) -> Any:
        registry: Registry | None = self
        while registry is not None:
            registry.import_from_location()
            if name in registry._module_dict:
                return registry._module_dict[name]
            registry = registry.parent
        return None

    def _get_own(self, scope: str, name: str) -> Any:
        """What this registry or its root, whichever has the scope, has itself under a name."""
        owner = self if scope == self._scope else self.root
        owner.import_from_location()
        return owner._module_dict.get(name)

    def _get_in_scope(self, scope: str, name: str) -> Any:
        root = self._get_root_registry()
        owner = self._children.get(scope, root._children.get(scope))
        if owner is None and import_scope(scope):
            owner = root._children.get(scope)
        return None if owner is None else owner.get(name)

    def build(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """Build an object from `cfg` by the registry's build function."""
        return self.build_func(cfg, *args, **kwargs, registry=self)

    def _register_module(
        self, module: Any, module_name: str | Iterable[str] | None = None, force: bool = False
    ) -> None:
        if not callable(module):
            raise TypeError(f"module must be Callable, but got {type(module)}")
        if module_name is None:
            module_name = module.__name__
        names = [module_name] if isinstance(module_name, str) else list(module_name)
        for name in names:
            existing = self._module_dict.get(name)
            if existing is not None and not force:
                if _is_stand_in(existing, module):
                    continue
                if not _is_stand_in(module, existing):
                    place = getattr(existing, "__module__", existing)
                    raise KeyError(f"{name} is already registered in {self.name} at {place}")
            self._module_dict[name] = module

    def register_module(
        self,
        name: str | list[str] | None = None,
        force: bool = False,
        module: Any = None,
    ) -> Any:
        """Register a class or function, as a decorator or, with `module`, by a plain call.

        Args:
            name: one or several names to register under; the module's own name when None.
            force: replace what is registered under the name.
            module: what to register.
        Raises:
            KeyError: the name is taken and `force` is False.
        """
        if not isinstance(force, bool):
            raise TypeError(f"force must be a boolean, but got {type(force)}")
        names_given = isinstance(name, list | tuple) and all(isinstance(n, str) for n in name)
        if not (name is None or isinstance(name, str) or names_given):
            raise TypeError(
                f"name must be None, an instance of str, or a sequence of str, but got {type(name)}"
            )
        if module is not None:
            self._register_module(module, name, force)
            return module

        def register(decorated: Any) -> Any:
            self._register_module(decorated, name, force)
            return decorated

        return register
