"""The engine face's names, signatures, bases and registered names, as its users know them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fasttrain.engine
from api.test_mmengine_face import accepts, describe, parameters_of
from fasttrain.engine import comm, registries

FACE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "engine_face" / "names.json").read_text(encoding="utf-8")
)
METHODS = [
    (name, method, expected)
    for name, methods in FACE["classes"].items()
    for method, expected in methods.items()
]


def check(where: str, ours: Any, expected: Any) -> None:
    same = ours == expected if isinstance(expected, str) else accepts(ours, expected)
    if where in FACE["differences"]:
        assert not same, f"{where}: is as expected; take it off the differences"
        assert ours == FACE["differences"][where]["ours"], f"{where}: changed"
    else:
        assert same, f"{where}: expected {expected}, got {ours}"


@pytest.mark.parametrize("name", [*FACE["functions"], *FACE["classes"]])
def test_the_room_exports_the_name(name: str) -> None:
    assert name in fasttrain.engine.__all__
    assert hasattr(fasttrain.engine, name)


@pytest.mark.parametrize(("name", "expected"), FACE["functions"].items())
def test_functions(name: str, expected: list[str]) -> None:
    check(name, parameters_of(getattr(fasttrain.engine, name)), expected)


@pytest.mark.parametrize(
    ("name", "method", "expected"), METHODS, ids=[f"{n}.{m}" for n, m, _ in METHODS]
)
def test_methods(name: str, method: str, expected: Any) -> None:
    found = getattr(fasttrain.engine, name)
    if method == "__init__" and found.__init__ is object.__init__:
        assert expected == []
        return
    ours = describe(found, method)
    assert ours is not None, f"{name} lacks {method}"
    check(f"{name}.{method}", ours, expected)


@pytest.mark.parametrize(("name", "base"), FACE["bases"].items())
def test_bases(name: str, base: str) -> None:
    assert issubclass(getattr(fasttrain.engine, name), getattr(fasttrain.engine, base))


@pytest.mark.parametrize(("name", "expected"), FACE["comm"].items())
def test_comm(name: str, expected: list[str]) -> None:
    check(f"comm.{name}", parameters_of(getattr(comm, name)), expected)


@pytest.mark.parametrize(("name", "entries"), FACE["registries"].items())
def test_registered_names(name: str, entries: list[str]) -> None:
    registry = getattr(registries, f"{name}_REGISTRY")
    assert getattr(fasttrain.engine, f"{name}_REGISTRY") is registry
    assert [entry for entry in entries if entry not in registry] == []
