"""Imports go down only: every module's imports stay on its own layer or below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "fasttrain"

# Top-level room -> layer. Rooms of one layer may import each other, except the two faces.
MMENGINE_FACE = {
    "runner", "hooks", "logging", "optim", "model", "evaluator", "dataset", "visualization", "dist",
    "hub",
}  # fmt: skip
LAYERS = {
    "version": 0,
    "native": 1,
    "core": 2,
    "utils": 3,
    "registry": 3,
    "config": 3,
    "device": 3,
    **dict.fromkeys(MMENGINE_FACE, 4),
    "engine": 4,
    "bridge": 5,
    "cli": 5,
    "dropin": 5,
    "__main__": 5,
}


def room_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """Absolute names of all fasttrain modules that a file imports, local imports included."""
    package = ["fasttrain", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, module)]
            if module == "fasttrain":
                found += [(node.lineno, f"fasttrain.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in found if name.split(".")[0] == "fasttrain"]


SOURCES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in LAYERS, f"{path}: the room {room!r} has no layer; add it to LAYERS"
    for line, name in imported_modules(path):
        target = (name.split(".") + ["version"])[1]
        if target == "_C":
            assert room == "native", f"{path}:{line}: only fasttrain/native.py imports _C"
            continue
        if target == "__version__":
            continue
        assert target in LAYERS, f"{path}:{line}: unknown room {target!r}"
        assert LAYERS[target] <= LAYERS[room], (
            f"{path}:{line}: {room} (L{LAYERS[room]}) imports {name}"
        )
        faces = {room in MMENGINE_FACE, target in MMENGINE_FACE}
        if "engine" in (room, target) and room != target and LAYERS[room] == 4:
            assert faces == {False}, f"{path}:{line}: the two faces import each other"


def test_core_names_no_face() -> None:
    """The core knows no word of the faces that stand on it."""
    for path in (ROOT / "core").rglob("*.py"):
        code = "\n".join(
            ast.unparse(node) for node in ast.parse(path.read_text(encoding="utf-8")).body
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        )  # fmt: skip
        for word in ("fasttrain.runner", "fasttrain.registry", "fasttrain.config"):
            assert word not in code, f"{path} mentions {word}"
