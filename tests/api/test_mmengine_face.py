"""The public names and signatures of the mmengine face are frozen in the files of `mmengine_face/`.

- `names.json`: module -> names that it must offer.
- `signatures.json`: module -> name -> the parameters of a function, or method -> parameters of a
  class ("property" for a property, `self` left out), or name -> value of an enumeration.
- `differences.json`: "module.Class.method" -> the parameters that ours has instead, and why.
- `not_yet.json`: module -> names and "Class.method"s that are not there yet. It only shrinks.

An extra parameter of ours is no difference as long as a caller may leave it out.
"""

import enum
import importlib
import inspect
import json
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "mmengine_face"


def read(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return data


NAMES = read("names")
SIGNATURES = read("signatures")
DIFFERENCES = read("differences")
NOT_YET = read("not_yet")
MEMBERS = [
    (module, name, expected)
    for module, entries in SIGNATURES.items()
    for name, expected in entries.items()
    if name not in NOT_YET.get(module, ())
]


def import_room(module: str) -> Any:
    try:
        return importlib.import_module(f"fasttrain.{module}")
    except ModuleNotFoundError as error:
        if f"fasttrain.{module}".startswith(str(error.name)):
            return None
        raise


def default_text(default: Any) -> str:
    if isinstance(default, type) or inspect.isroutine(default):
        return default.__qualname__
    if isinstance(default, enum.Enum):
        return str(default)
    if isinstance(default, TextIOWrapper) or default in (None,):
        return "None" if default is None else "sys.stdout"
    text = repr(default)
    is_short = " at 0x" not in text and "\n" not in text
    return text if is_short else type(default).__qualname__


def parameters_of(function: Any) -> list[str]:
    found: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            found.append(f"*{parameter.name}")
        elif parameter.kind is parameter.VAR_KEYWORD:
            found.append(f"**{parameter.name}")
        else:
            if parameter.kind is parameter.KEYWORD_ONLY and not any(p[0] == "*" for p in found):
                found.append("*")
            bare = parameter.default is parameter.empty
            default = "" if bare else f"={default_text(parameter.default)}"
            found.append(parameter.name + default)
    return found


def split(parameters: list[str]) -> tuple[list[str], set[str], set[str]]:
    """Positional parameters in order, keyword-only ones, and the kinds of catch-alls."""
    positional: list[str] = []
    keyword_only: set[str] = set()
    catch_all: set[str] = set()
    for parameter in parameters:
        stars = len(parameter) - len(parameter.lstrip("*"))
        if stars:
            catch_all |= {"*" * stars} if parameter != "*" else set()
        elif any(p[0] == "*" for p in parameters[: parameters.index(parameter)]):
            keyword_only.add(parameter)
        else:
            positional.append(parameter)
    return positional, keyword_only, catch_all


def accepts(ours: list[str], expected: list[str]) -> bool:
    """Whether every call that fits `expected` means the same to `ours`."""
    our_positional, our_keyword_only, our_catch_all = split(ours)
    positional, keyword_only, catch_all = split(expected)
    if not catch_all <= our_catch_all or len(our_positional) < len(positional):
        return False
    if not all(map(fits, our_positional, positional)):
        return False
    extra = {*our_positional[len(positional) :], *our_keyword_only}
    return keyword_only <= extra and all("=" in name for name in extra - keyword_only)


def fits(ours: str, expected: str) -> bool:
    """Same name and default; ours may have a default where none is expected."""
    return ours == expected or ("=" not in expected and ours.startswith(f"{expected}="))


def describe(owner: Any, method: str) -> list[str] | str | None:
    """Parameters of a method without `self`, "property", or None when there is no such method."""
    found = inspect.getattr_static(owner, method, None)
    if found is None:
        return None
    if isinstance(found, staticmethod):
        return parameters_of(found.__func__)
    if isinstance(found, classmethod):
        return parameters_of(found.__func__)[1:]
    return parameters_of(found)[1:] if callable(found) else "property"


@pytest.mark.parametrize("module", NAMES)
def test_names(module: str) -> None:
    room = import_room(module)
    missing = {name for name in NAMES[module] if not hasattr(room, name)}
    allowed = {name for name in NOT_YET.get(module, ()) if "." not in name}
    assert missing <= allowed, f"fasttrain.{module} lacks {sorted(missing - allowed)}"
    appeared = sorted(allowed - missing)
    assert not appeared, f"fasttrain.{module} has {appeared}: take them off not_yet.json"


@pytest.mark.parametrize(
    ("module", "name", "expected"), MEMBERS, ids=[f"{m}.{n}" for m, n, _ in MEMBERS]
)
def test_signatures(module: str, name: str, expected: Any) -> None:
    ours = getattr(import_room(module), name)
    if isinstance(expected, list):
        check_parameters(f"{module}.{name}", parameters_of(ours), expected)
    elif "members" in expected:
        assert {member.name: member.value for member in ours} == expected["members"]
    else:
        for method, parameters in expected.items():
            found = describe(ours, method)
            if f"{name}.{method}" in NOT_YET.get(module, ()):
                assert found is None, f"{module}.{name}.{method}: take it off not_yet.json"
            else:
                assert found is not None, f"fasttrain.{module}.{name} lacks {method}"
                check_parameters(f"{module}.{name}.{method}", found, parameters)


def check_parameters(where: str, ours: list[str] | str, expected: list[str] | str) -> None:
    if isinstance(ours, list) and isinstance(expected, list):
        same = accepts(ours, expected)
    else:
        same = ours == expected
    if where in DIFFERENCES:
        assert not same, f"{where}: is as expected; take it off differences.json"
        assert ours == DIFFERENCES[where]["ours"], f"{where}: changed"
    else:
        assert same, f"{where}: expected {expected}, got {ours}"


def test_every_listed_name_is_a_name_of_the_face() -> None:
    for module, names in NOT_YET.items():
        for name in names:
            top, _, method = name.partition(".")
            assert top in NAMES[module], f"not_yet.json: {module} has no name {top}"
            assert not method or method in SIGNATURES[module][top], f"not_yet.json: {name}"
    for where, entry in DIFFERENCES.items():
        assert entry.keys() == {"ours", "why"}, f"differences.json: {where}"


@pytest.mark.parametrize(
    ("ours", "expected", "same"),
    [
        (["a", "b=1"], ["a", "b=1"], True),
        (["a", "b=1", "c=2"], ["a", "b=1"], True),
        (["a", "b=1", "*", "c=2"], ["a", "b=1"], True),
        (["a", "b=2"], ["a", "b=1"], False),
        (["a", "b=2"], ["a", "b"], True),
        (["a", "b"], ["a", "b=1"], False),
        (["a", "bc=2"], ["a", "b"], False),
        (["b=1", "a"], ["a", "b=1"], False),
        (["a", "b"], ["a"], False),
        (["a"], ["a", "**kwargs"], False),
        (["a", "*rest", "**kwargs"], ["a", "**kwargs"], True),
        (["a", "*", "c=2", "b=1"], ["a", "*", "b=1"], True),
    ],
)
def test_accepts(ours: list[str], expected: list[str], same: bool) -> None:
    assert accepts(ours, expected) is same
