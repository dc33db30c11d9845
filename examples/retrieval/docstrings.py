"""Pairs of a function's name and what its docstring says, from Python's own standard library."""

from __future__ import annotations

import ast
import re
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

NUM_BUCKETS = 2**14
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def standard_library_pairs() -> list[tuple[str, str]]:
    """(qualified name, first paragraph of the docstring), sorted; tests are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    pairs: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if {"test", "tests", "site-packages", "idlelib", "lib2to3"} & set(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
        for name, text in _documented(tree, module):
            pairs.setdefault(name, text)
    return sorted(pairs.items())


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{prefix}.{child.name}"
        text = (ast.get_docstring(child) or "").split("\n\n")[0].replace("\n", " ")
        if len(text.split()) >= 4 and not child.name.startswith("__"):
            yield name, text
        yield from _documented(child, name)


def words(text: str) -> list[str]:
    """Lower-case words, with names in camel case or with underscores taken apart."""
    return [word.lower() for word in _WORD.findall(text)]


def features(text: str) -> list[int]:
    """Hash buckets of the words and of their letter triples, at least one."""
    found = words(text)
    parts = [f"w:{word}" for word in found]
    for word in found:
        padded = f"<{word}>"
        parts += [padded[i : i + 3] for i in range(len(padded) - 2)]
    return [zlib.crc32(part.encode()) % NUM_BUCKETS for part in parts] or [0]


def bags(texts: list[str]) -> tuple[Tensor, Tensor]:
    """The features of all texts in one row, and where each text begins (for EmbeddingBag)."""
    found = [features(text) for text in texts]
    starts = torch.tensor([0, *(len(part) for part in found[:-1])]).cumsum(0)
    return torch.tensor([bucket for part in found for bucket in part]), starts
