"""Calls that torch.compile leaves alone, inside and out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def opaque(function: Function) -> Function:
    """`function` as one call in a traced function, none of whose inside is compiled.

    As torch.compiler.disable, but without importing the compiler, and where no compiler is at work
    the call goes straight through: telling it to look away and to look again takes microseconds
    between two steps of a model.
    """
    disabled: Any = torch._disable_dynamo(function)  # type: ignore[no-untyped-call]
    frames: Any = torch._C._dynamo.eval_frame

    def call(*args: Any, **kwargs: Any) -> Any:
        if compiler_at_work() is None:
            return function(*args, **kwargs)
        return disabled(*args, **kwargs)

    try:
        compiler_at_work = frames.get_eval_frame_callback
        action = frames._FrameAction
        only_this_frame = frames._FrameExecStrategy(action.SKIP, action.DEFAULT)
        frames.set_code_exec_strategy(call.__code__, only_this_frame)  # do not compile it by itself
    except AttributeError:  # another version of torch
        return cast(Function, disabled)
    opaque_call = functools.update_wrapper(call, function)
    opaque_call._torchdynamo_disable = True  # type: ignore[attr-defined]  # nor trace into it
    return cast(Function, opaque_call)
