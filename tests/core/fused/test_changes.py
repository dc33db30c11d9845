"""What users do to parameters, groups and states between steps has the effect that it has in torch.

The table holds addresses: each of these changes must be noticed before the next step.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.core import fused

Act = Callable[[Any], object]


def params_of(optimizer: Any) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def clear_state(optimizer: Any) -> None:
    optimizer.state.clear()


def replace_state(optimizer: Any) -> None:
    optimizer.state = collections.defaultdict(dict)


def replace_moment(optimizer: Any) -> None:
    param = params_of(optimizer)[0]
    optimizer.state[param]["exp_avg"] = torch.ones_like(param)


def replace_states_of_one(optimizer: Any) -> None:
    optimizer.state[params_of(optimizer)[0]] = {}


def delete_states_of_one(optimizer: Any) -> None:
    del optimizer.state[params_of(optimizer)[1]]


def replace_step_count(optimizer: Any) -> None:
    optimizer.state[params_of(optimizer)[0]]["step"] = torch.tensor(10.0)


def fill_step_count(optimizer: Any) -> None:
    optimizer.state[params_of(optimizer)[0]]["step"].fill_(10.0)


def exchange_moments(optimizer: Any) -> None:
    first, _, second = params_of(optimizer)
    states = optimizer.state
    states[first]["exp_avg"], states[second]["exp_avg"] = (
        states[second]["exp_avg"],
        states[first]["exp_avg"],
    )


def grow_a_parameter(optimizer: Any) -> None:
    """As models do that add points while they train."""
    old = params_of(optimizer)[0]
    state = optimizer.state.pop(old)
    new = nn.Parameter(torch.cat([old.detach(), torch.ones(3)]))
    for key in ("exp_avg", "exp_avg_sq"):
        state[key] = torch.cat([state[key], torch.zeros(3)])
    optimizer.param_groups[0]["params"][0] = new
    optimizer.state[new] = state


def reverse_parameters(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"].reverse()


def drop_a_parameter(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"].pop()


def another_list(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"] = list(reversed(optimizer.param_groups[0]["params"]))


def another_group_dict(optimizer: Any) -> None:
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.03}


def another_groups_list(optimizer: Any) -> None:
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]


def empty_group(optimizer: Any) -> None:
    optimizer.add_param_group({"params": []})


def to_double(optimizer: Any) -> None:
    for param in params_of(optimizer):
        param.data = param.data.double()
        for key, value in optimizer.state[param].items():
            optimizer.state[param][key] = value if key == "step" else value.double()


def freeze(optimizer: Any) -> None:
    params_of(optimizer)[0].requires_grad_(False)


def in_place_data(optimizer: Any) -> None:
    params_of(optimizer)[0].data.mul_(0.5)


def other_data(optimizer: Any) -> None:
    params_of(optimizer)[0].data = torch.ones(6)


def transposed_data(optimizer: Any) -> None:
    param = params_of(optimizer)[1]
    param.data = param.data.t().contiguous().t()


def settings(**values: Any) -> Act:
    def change(optimizer: Any) -> None:
        optimizer.param_groups[0].update(values)

    change.__name__ = "_".join(values)
    return change


def hook(optimizer: Any) -> None:
    def double(inner: Any, args: Any, kwargs: Any) -> None:
        for param in params_of(inner):
            param.grad.mul_(2)

    optimizer.register_step_pre_hook(double)


ADAM = [
    clear_state,
    replace_state,
    replace_moment,
    replace_states_of_one,
    delete_states_of_one,
    replace_step_count,
    fill_step_count,
    exchange_moments,
    grow_a_parameter,
    reverse_parameters,
    drop_a_parameter,
    another_list,
    another_group_dict,
    another_groups_list,
    empty_group,
    to_double,
    freeze,
    in_place_data,
    other_data,
    transposed_data,
    hook,
    settings(lr=torch.tensor(0.05)),
    settings(weight_decay=0.2),
    settings(betas=(0.5, 0.6)),
    settings(maximize=True),
    settings(eps=0.1),
    settings(foreach=True),
    settings(fused=False),
]
SGD = [
    settings(momentum=0.9),
    settings(momentum=0.9, nesterov=True),
    settings(dampening=0.5),
    clear_state,
    reverse_parameters,
]


def check(name: str, act: Act, **kwargs: Any) -> None:
    sides = []
    for module in (fused, torch.optim):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(shape)) for shape in ((6,), (3, 4), (6,))]
        sides.append(getattr(module, name)(params, lr=0.1, **kwargs))
    for step in range(5):
        for optimizer in sides:
            if step == 2:
                act(optimizer)
            torch.manual_seed(step)
            for param in params_of(optimizer):
                param.grad = torch.randn_like(param)
            optimizer.step()
    ours, theirs = sides
    assert len(ours.state) == len(theirs.state)
    for left, right in zip(params_of(ours), params_of(theirs), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)
        assert ours.state[left].keys() == theirs.state[right].keys()
        for key, value in theirs.state[right].items():
            torch.testing.assert_close(ours.state[left][key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("act", ADAM, ids=lambda act: act.__name__)
def test_adam(path: str, act: Act) -> None:
    check("Adam", act)


@pytest.mark.parametrize("act", SGD, ids=lambda act: act.__name__)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd(path: str, act: Act, momentum: float) -> None:
    check("SGD", act, momentum=momentum)


def test_states_live_as_long_as_the_table_writes_to_them(path: str) -> None:
    """A state that is thrown away and not replaced is made anew, not written to where it was."""
    params = [nn.Parameter(torch.ones(1000)) for _ in range(20)]
    optimizer = fused.AdamW(params)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    for _ in range(3):
        optimizer.state.clear()
        canaries = [torch.full((1000,), 7.0) for _ in range(60)]  # where the states were
        optimizer.step()
        assert all(bool((canary == 7.0).all()) for canary in canaries)
        assert {float(state["step"]) for state in optimizer.state.values()} == {1.0}


def test_layers_are_frozen_and_unfrozen(path: str) -> None:
    """As fine-tuning does: real backward passes, parameters without gradients in between."""
    sides = []
    for module in (fused, torch.optim):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        model[0].requires_grad_(False)
        optimizer = module.AdamW(model.parameters(), lr=0.05)
        for step in range(9):
            model[0].requires_grad_(step in (3, 4, 5, 8))
            model[2].bias.requires_grad_(step != 4)
            torch.manual_seed(step)
            model(torch.randn(3, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        sides.append((list(model.parameters()), optimizer))
    for left, right in zip(sides[0][0], sides[1][0], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
        counts = [float(o.state[p]["step"]) for p, (_, o) in zip((left, right), sides, strict=True)]
        assert counts[0] == counts[1]


def test_a_parameter_of_two_optimizers(path: str) -> None:
    sides = []
    for module in (fused, torch.optim):
        param = nn.Parameter(torch.ones(5))
        pair = module.SGD([param], lr=0.1, momentum=0.9), module.Adam([param], lr=0.01)
        for step in range(4):
            param.grad = torch.full((5,), 1.0 + step)
            for optimizer in pair:
                optimizer.step()
        sides.append(param)
    torch.testing.assert_close(sides[0], sides[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_that_becomes_low_precision_midway(path: str, dtype: torch.dtype) -> None:
    """Its states follow the parameter's dtype, as those of a new optimizer would be."""
    model = nn.Linear(4, 4)
    optimizer = fused.SGD(model.parameters(), lr=0.5, momentum=0.5)
    expected = [p.detach().clone() for p in model.parameters()]
    momenta = [torch.zeros_like(p) for p in expected]
    for step in range(4):
        if step == 2:
            model.to(dtype)
        for param, value, momentum in zip(model.parameters(), expected, momenta, strict=True):
            param.grad = torch.full_like(param, 0.25)
            momentum.mul_(0.5).add_(0.25)
            value.sub_(momentum, alpha=0.5)
        optimizer.step()
    for param, value in zip(model.parameters(), expected, strict=True):
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(param.float(), value, rtol=4 * eps, atol=4 * eps)


@pytest.mark.parametrize("kwargs", [{"foreach": True}, {"fused": False}], ids=str)
def test_torchs_step_on_request(path: str, kwargs: dict[str, bool]) -> None:
    sides = []
    for module in (fused, torch.optim):
        param = nn.Parameter(torch.ones(5))
        optimizer = module.Adam([param], lr=0.1, **kwargs)
        for _ in range(3):
            param.grad = torch.ones(5)
            optimizer.step()
        sides.append(param.detach())
    assert torch.equal(sides[0], sides[1])
