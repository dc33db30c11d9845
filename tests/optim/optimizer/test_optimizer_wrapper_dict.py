"""Several wrappers under names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import OptimWrapper, OptimWrapperDict
from support import check_save_and_resume


def make() -> tuple[nn.Module, OptimWrapperDict]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    first = OptimWrapper(torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9))
    groups = [{"params": [p]} for p in model[1].parameters()]
    second = OptimWrapper(torch.optim.Adam(groups, lr=0.2))
    return model, OptimWrapperDict(gen=first, disc=second)


def test_is_a_mapping() -> None:
    _, wrappers = make()
    assert isinstance(wrappers, OptimWrapper)
    assert list(wrappers.keys()) == list(wrappers) == ["gen", "disc"]
    assert list(wrappers.values()) == [wrappers["gen"], wrappers["disc"]]
    assert dict(wrappers.items()) == wrappers.optim_wrappers
    assert len(wrappers) == 2
    assert "gen" in wrappers
    assert "other" not in wrappers
    assert repr(wrappers) == f"name: gen\n{wrappers['gen']!r}name: disc\n{wrappers['disc']!r}"


def test_reads_all_wrappers() -> None:
    model, wrappers = make()
    assert wrappers.get_lr() == {
        "gen.lr": [0.1],
        "disc.base_lr": [0.2],
        "disc.lr": [0.2, 0.2],
    }
    assert wrappers.get_momentum() == {"gen.momentum": [0.9], "disc.momentum": [0.9, 0.9]}
    assert {name: len(groups) for name, groups in wrappers.param_groups.items()} == {
        "gen": 1,
        "disc": 3,
    }
    model(torch.ones(1, 2)).sum().backward()
    wrappers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
    wrappers.initialize_count_status(model, 3, 10)
    assert wrappers["gen"].inner_count == 0


@pytest.mark.parametrize("name", ["update_params", "backward", "step", "optim_context"])
def test_what_each_wrapper_must_do_itself(name: str) -> None:
    _, wrappers = make()
    args = () if name == "step" else (torch.tensor(1.0),)
    with pytest.raises(NotImplementedError, match=f"`{name}` should be called by each optimizer"):
        getattr(wrappers, name)(*args)


def test_resumes() -> None:
    def advance(part: Any, step: int) -> Any:
        model, wrappers = part
        for wrapper in wrappers.values():
            wrappers.zero_grad()  # what the other wrapper's loss left
            wrapper.update_params(model(torch.full((1, 2), float(step))).square().sum())
        return [parameter.detach() for parameter in model.parameters()]

    def state(part: Any) -> Any:
        return {"model": dict(part[0].state_dict()), "wrappers": part[1].state_dict()}

    def load(part: Any, saved: Any) -> None:
        part[0].load_state_dict(saved["model"])
        part[1].load_state_dict(saved["wrappers"])

    check_save_and_resume(make, advance, state=state, load=load)


def test_bad_arguments() -> None:
    with pytest.raises(AssertionError, match="only accept OptimWrapper instance, but got a: <cla"):
        OptimWrapperDict(a=1)  # type: ignore[arg-type]
    _, wrappers = make()
    with pytest.raises(AssertionError, match=r"Cannot find other in .* has \['gen', 'disc'\]"):
        wrappers["other"]
    with pytest.raises(AssertionError, match="cannot found other in OptimWrapperDict"):
        wrappers.load_state_dict({"other": {}})
