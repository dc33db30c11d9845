"""Run code written for mmengine on fasttrain, unchanged: `python -m fasttrain.dropin SCRIPT ...`.

After `install()`, `mmengine.runner`, `mmengine.hooks` and the other rooms that fasttrain has are
the very module objects of `fasttrain.runner`, `fasttrain.hooks`, ..., deep paths included. Whatever
else is asked of mmengine (`mmengine.fileio`, `mmengine.structures`, ...) comes from an installed
mmengine, if there is one, and meets fasttrain's rooms wherever it imports them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from fasttrain.version import MMENGINE_VERSION

FACE = "mmengine"
HOME = "fasttrain"
VERSION = MMENGINE_VERSION
ROOMS = frozenset({
    "config", "registry", "runner", "hooks", "logging", "optim", "model", "evaluator", "dataset",
    "dist", "visualization", "device", "hub",
})  # fmt: skip
# Where `mmengine.<name>` looks for names that are no modules, in this order.
TOP_LEVEL = ("config", "registry", "logging", "utils", "fileio")
USAGE = """usage: python -m fasttrain.dropin SCRIPT [ARGUMENT ...]
       python -m fasttrain.dropin -m MODULE [ARGUMENT ...]

Run a script or module written for mmengine with fasttrain in mmengine's place."""


def install() -> None:
    """Put fasttrain's rooms in mmengine's place for every import from now on; idempotent.

    Raises:
        RuntimeError: mmengine itself was imported before.
    """
    if _installed() is not None:
        return
    early = sorted(name for name in sys.modules if name == FACE or name.startswith(f"{FACE}."))
    if early:
        raise RuntimeError(
            f"fasttrain.dropin.install() must run before anything imports {FACE}, but "
            f"{len(early)} of its modules are imported already (first: {', '.join(early[:3])}); "
            f"call it at the very top of the script, or start the script with "
            f"`python -m fasttrain.dropin SCRIPT`"
        )
    sys.meta_path.insert(0, _DropinFinder())


def uninstall() -> None:
    """Take the rooms out again: the next import of mmengine is the installed one."""
    finder = _installed()
    if finder is None:
        return
    sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name == FACE or name.startswith(f"{FACE}.")]:
        del sys.modules[name]


def _installed() -> _DropinFinder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, _DropinFinder)), None)


class _DropinFinder(importlib.abc.MetaPathFinder):
    """Answers imports of mmengine and of what lies under it."""

    def __init__(self) -> None:
        found = None
        for finder in sys.meta_path:
            found = finder.find_spec(FACE, None)
            if found is not None:
                break
        self.search_path = list(found.submodule_search_locations or []) if found else []
        self.origin = found.origin if found else None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top != FACE:
            return None
        if not rest:
            return self._top_level_spec()
        if rest == "version":
            return ModuleSpec(fullname, _VersionLoader())
        in_our_rooms = rest.partition(".")[0] in ROOMS
        if self.search_path and not in_our_rooms:
            return None  # the installed mmengine's, found along mmengine.__path__
        if _exists(f"{HOME}.{rest}"):
            return ModuleSpec(fullname, _AliasLoader(f"{HOME}.{rest}"))
        if in_our_rooms:
            reason = f"{HOME} stands in for {FACE} here and has no module {HOME}.{rest}"
        else:
            reason = (
                f"{HOME} does not have this part of {FACE}; `pip install {FACE}` beside {HOME} "
                f"and it is taken from there"
            )
        raise ModuleNotFoundError(f"No module named {fullname!r}: {reason}", name=fullname)

    def _top_level_spec(self) -> ModuleSpec:
        spec = ModuleSpec(FACE, _TopLevelLoader(), origin=self.origin or __file__, is_package=True)
        spec.submodule_search_locations = list(self.search_path)
        return spec


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent is no package, or is missing too
        return False


class _AliasLoader(importlib.abc.Loader):
    """Makes a second name of a module that exists: one module object under both names."""

    def __init__(self, name: str) -> None:
        self.name = name

    def exec_module(self, module: ModuleType) -> None:
        # The import system hands out what it finds in sys.modules after this call.
        assert module.__spec__ is not None
        sys.modules[module.__spec__.name] = importlib.import_module(self.name)


class _VersionLoader(importlib.abc.Loader):
    """Fills `mmengine.version`."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_version_names())


class _TopLevelLoader(importlib.abc.Loader):
    """Fills the `mmengine` package itself; names are looked up when they are first asked for."""

    def exec_module(self, module: ModuleType) -> None:
        def lazy_attribute(name: str) -> Any:
            value = _top_level_attribute(name)
            setattr(module, name, value)
            return value

        def list_names() -> list[str]:
            return sorted({*vars(module), *ROOMS, *_names_of_rooms()})

        assert module.__spec__ is not None
        module.__file__ = module.__spec__.origin
        vars(module).update(_version_names(), __getattr__=lazy_attribute, __dir__=list_names)


def _version_names() -> dict[str, Any]:
    numbers = tuple(int(part) for part in VERSION.split("."))
    return {"__version__": VERSION, "version_info": numbers}


def _top_level_attribute(name: str) -> Any:
    if not name.startswith("__"):
        qualified = f"{FACE}.{name}"
        if name in ROOMS or _exists(qualified):
            return importlib.import_module(qualified)
        for room in _top_level_rooms():
            if hasattr(room, name):
                return getattr(room, name)
    raise AttributeError(f"module {FACE!r} has no attribute {name!r}")


def _top_level_rooms() -> list[ModuleType]:
    names = [f"{FACE}.{room}" for room in TOP_LEVEL]
    return [importlib.import_module(name) for name in names if _exists(name)]


def _names_of_rooms() -> set[str]:
    return {name for room in _top_level_rooms() for name in vars(room) if name[:1] != "_"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a script or a module with fasttrain in mmengine's place."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    as_module = arguments[0] == "-m"
    if as_module:
        arguments = arguments[1:]
        if not arguments:
            print(f"{USAGE}\n\nerror: -m needs the name of a module", file=sys.stderr)
            return 2
    elif not Path(arguments[0]).is_file():
        print(f"error: no such script: {arguments[0]}", file=sys.stderr)
        return 2
    install()
    sys.argv[:] = arguments
    if as_module:
        sys.path.insert(0, "")
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        # As Python itself does for a script: its folder comes first on the path.
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    # Under `-m` this file is `__main__`; the finder must be the one of `fasttrain.dropin`.
    from fasttrain.dropin import main as imported_main

    sys.exit(imported_main())
