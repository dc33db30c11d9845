"""The optimizer wrapper: template methods, exact accumulation, clipping, the one-call step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from fasttrain.core import fused
from fasttrain.logging import MessageHub
from fasttrain.optim import BaseOptimWrapper, OptimWrapper
from fasttrain.registry import OPTIM_WRAPPERS
from support import check_save_and_resume


@pytest.fixture(autouse=True)
def hub(request: pytest.FixtureRequest) -> MessageHub:
    return MessageHub.get_instance(f"optimizer wrapper {request.node.name}")


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def sgd(model: nn.Module, **kwargs: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, **kwargs)


def losses(model: nn.Module, num_iters: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_iters):
        yield model(torch.randn(5, 3, generator=generator)).square().mean()


def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(
        "fasttrain.optim.optimizer.optimizer_wrapper.print_log",
        lambda text, logger, level: texts.append(text),
    )
    return texts


def test_registered() -> None:
    assert OPTIM_WRAPPERS.get("OptimWrapper") is OptimWrapper
    assert issubclass(OptimWrapper, BaseOptimWrapper)


def test_update_params_takes_the_template_methods() -> None:
    wrapper: Any = OptimWrapper(sgd(make_model()), accumulative_counts=3)
    for name in ("backward", "step", "zero_grad"):
        setattr(wrapper, name, MagicMock())
    wrapper.update_params(torch.tensor(6.0))
    assert float(wrapper.backward.call_args.args[0]) == 2.0
    wrapper.step.assert_called_once_with()  # a mocked backward does not count: 0 is due
    wrapper._inner_count = 1
    wrapper.update_params(torch.tensor(6.0))
    wrapper.step.assert_called_once_with()
    wrapper._inner_count = 3
    wrapper.update_params(torch.tensor(6.0), dict(closure=None), dict(set_to_none=False))
    wrapper.step.assert_called_with(closure=None)
    wrapper.zero_grad.assert_called_with(set_to_none=False)


def test_step_and_zero_grad_reach_the_optimizer() -> None:
    optimizer: Any = fused.SGD(make_model().parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer)
    optimizer.step = MagicMock()
    optimizer.zero_grad = MagicMock()
    wrapper.step(closure=1)
    wrapper.zero_grad(set_to_none=True)
    optimizer.step.assert_called_once_with(closure=1)
    optimizer.zero_grad.assert_called_once_with(set_to_none=True)


def test_loss_itself_without_accumulation() -> None:
    wrapper = OptimWrapper(sgd(make_model()))
    loss = torch.tensor(1.0)
    assert wrapper.scale_loss(loss) is loss
    assert wrapper.should_update()
    assert wrapper.should_sync()


@pytest.mark.parametrize(("init", "total", "k"), [(0, 7, 3), (0, 6, 3), (3, 8, 3), (0, 5, 1)])
def test_last_incomplete_group_is_exact(init: int, total: int, k: int) -> None:
    """Gradients of each group are the mean over the losses that are really in it."""
    model, reference = make_model(), make_model()
    wrapper = OptimWrapper(sgd(model), accumulative_counts=k)
    wrapper.initialize_count_status(model, init, total)
    optimizer = sgd(reference)
    group: list[torch.Tensor] = []
    for count, (ours, theirs) in enumerate(
        zip(losses(model, total - init), losses(reference, total - init), strict=True), init + 1
    ):
        wrapper.update_params(ours)
        group.append(theirs)
        if count % k == 0 or count == total:
            (sum(group) / len(group)).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()
            group = []
    assert wrapper.inner_count == total
    for mine, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-7)


def test_counts_beyond_the_announced_end_raise() -> None:
    model = make_model()
    wrapper = OptimWrapper(sgd(model), accumulative_counts=2)
    wrapper.initialize_count_status(model, 7, 4)
    with pytest.raises(AssertionError, match="loss_factor should be larger than zero"):
        wrapper.scale_loss(torch.tensor(1.0))


def test_initialize_count_status(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = said(monkeypatch)
    wrapper = OptimWrapper(sgd(make_model()), accumulative_counts=3)
    wrapper.initialize_count_status(make_model(), 0, 100)
    assert (wrapper._inner_count, wrapper._max_counts, wrapper._remainder_counts) == (0, 100, 1)
    assert texts == []
    wrapper.initialize_count_status(nn.Sequential(nn.BatchNorm1d(2)), 4, 100)
    assert [text.split("`")[0] for text in texts] == [
        "Resumed iteration number is not divisible by ",
        "Gradient accumulative may slightly decrease performance: the model's BatchNorm layers "
        "see each small batch by itself.",
    ]


def test_gradients_are_not_reduced_in_mid_accumulation() -> None:
    class Parallel(nn.Linear):
        unsynced = 0

        @contextmanager
        def no_sync(self) -> Iterator[None]:
            self.unsynced += 1
            yield

    model = Parallel(3, 1)
    wrapper = OptimWrapper(sgd(model), accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 8)
    shown = []
    for _ in range(8):
        before = model.unsynced
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 3)).sum()
        shown.append(model.unsynced - before)
        wrapper.update_params(loss)
    assert shown == [1, 1, 0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf, "inf"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, fused.SGD])
def test_clip_by_norm(kind: Any, norm_type: Any, hub: MessageHub) -> None:
    model, reference = make_model(), make_model()
    wrapper = OptimWrapper(
        kind(model.parameters(), lr=0.1), clip_grad={"max_norm": 0.05, "norm_type": norm_type}
    )
    optimizer = sgd(reference)
    for ours, theirs in zip(losses(model, 3), losses(reference, 3), strict=True):
        wrapper.update_params(ours)
        theirs.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.05, float(norm_type))
        optimizer.step()
        optimizer.zero_grad()
        assert hub.get_scalar("train/grad_norm").current() == pytest.approx(float(norm), rel=1e-5)
    for mine, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [torch.optim.SGD, fused.SGD])
def test_clip_by_value(kind: Any, hub: MessageHub) -> None:
    model, reference = make_model(), make_model()
    clip_grad = {"type": "value", "clip_value": 0.01}
    wrapper = OptimWrapper(kind(model.parameters(), lr=0.1), clip_grad=clip_grad)
    assert clip_grad == {"type": "value", "clip_value": 0.01}
    assert wrapper.clip_grad_kwargs == {"clip_value": 0.01}
    optimizer = sgd(reference)
    for ours, theirs in zip(losses(model, 3), losses(reference, 3), strict=True):
        wrapper.update_params(ours)
        theirs.backward()
        torch.nn.utils.clip_grad_value_(reference.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
    for mine, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-7)
    assert not hub.log_scalars


def test_nothing_to_clip_publishes_nothing(hub: MessageHub) -> None:
    wrapper = OptimWrapper(sgd(make_model()), clip_grad={"max_norm": 1.0})
    wrapper.step()
    assert not hub.log_scalars


def test_norm_is_put_as_a_tensor(hub: MessageHub, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[Any] = []
    monkeypatch.setattr(hub, "update_scalar", lambda name, value: put.append((name, value)))
    model = make_model()
    wrapper = OptimWrapper(sgd(model), clip_grad={"max_norm": 1.0})
    wrapper.update_params(next(losses(model, 1)))
    ((name, value),) = put
    assert name == "train/grad_norm"
    assert isinstance(value, torch.Tensor)


class Spied(fused.SGD):
    """Counts the one-call steps."""

    def __init__(self, params: Any, **kwargs: Any) -> None:
        super().__init__(params, lr=0.1, **kwargs)
        self.calls: list[Any] = []

    def fused_step(self, **kwargs: Any) -> Any:
        self.calls.append(kwargs)
        return super().fused_step(**kwargs)


def one_call_steps(wrapper_type: type[OptimWrapper] = OptimWrapper, **kwargs: Any) -> list[Any]:
    model = make_model()
    optimizer = Spied(model.parameters(), fused=kwargs.pop("fused", None))
    change = kwargs.pop("change", lambda wrapper: None)
    wrapper = wrapper_type(optimizer, **{"clip_grad": {"max_norm": 0.1}, **kwargs})
    change(wrapper)
    wrapper.update_params(next(losses(model, 1)))
    return optimizer.calls


def test_clipping_and_step_are_one_call() -> None:
    (call,) = one_call_steps()
    assert call["clip"].max_norm == 0.1
    (call,) = one_call_steps(clip_grad={"type": "value", "clip_value": 0.2})
    assert (call["clip"].type, call["clip"].clip_value) == ("value", 0.2)


def test_clip_settings_may_change_between_steps() -> None:
    model = make_model()
    optimizer = Spied(model.parameters())
    wrapper = OptimWrapper(optimizer, clip_grad={"max_norm": 0.1})
    for index, loss in enumerate(losses(model, 3)):
        assert wrapper.clip_grad_kwargs is not None
        wrapper.clip_grad_kwargs["max_norm"] = 0.1 * (index + 1)
        wrapper.update_params(loss)
    assert [call["clip"].max_norm for call in optimizer.calls] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"clip_grad": None},
        {"clip_grad": {"max_norm": 0.1, "foreach": False}},
        {"fused": False},
        {"change": lambda wrapper: setattr(wrapper, "_clip_grad", MagicMock())},
        {"change": lambda wrapper: setattr(wrapper, "zero_grad", MagicMock())},
        {"change": lambda wrapper: setattr(wrapper, "clip_func", MagicMock(return_value=None))},
        {"change": lambda wrapper: setattr(wrapper.optimizer, "step", MagicMock())},
    ],
)
def test_steps_one_by_one_when_the_difference_could_be_seen(kwargs: dict[str, Any]) -> None:
    assert one_call_steps(**kwargs) == []


@pytest.mark.parametrize("name", ["step", "_clip_grad", "zero_grad"])
def test_overridden_methods_see_what_they_saw(name: str) -> None:
    seen: list[float] = []

    class Watching(OptimWrapper):
        pass

    def override(self: Any, **kwargs: Any) -> None:
        getattr(OptimWrapper, name)(self, **kwargs)
        grads = [p.grad for g in self.optimizer.param_groups for p in g["params"]]
        if grads[0] is not None:
            seen.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))

    setattr(Watching, name, override)
    assert one_call_steps(Watching, clip_grad={"max_norm": 0.01}) == []
    if name != "zero_grad":
        assert seen == [pytest.approx(0.01, rel=1e-4)]


def test_a_subclass_that_scales_the_loss_keeps_the_one_call_step() -> None:
    class Doubling(OptimWrapper):
        def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
            return super().scale_loss(loss) * 2

    assert len(one_call_steps(Doubling)) == 1


def test_overlap_norm_is_passed_on() -> None:
    optimizer: Any = Spied(make_model().parameters())
    optimizer.enable_overlap_norm = MagicMock()
    OptimWrapper(optimizer, overlap_norm=True)
    optimizer.enable_overlap_norm.assert_called_once_with()
    with pytest.raises(ValueError, match="overlap_norm=True needs a fused optimizer, got SGD"):
        OptimWrapper(sgd(make_model()), overlap_norm=True)


@pytest.mark.parametrize(
    ("clip_grad", "error", "text"),
    [
        ([], AssertionError, "it should be a `dict` which is the arguments of"),
        ({}, AssertionError, "it should be a `dict` which is the arguments of"),
        ({"type": "both"}, ValueError, 'should be "norm" or "value" but got both'),
    ],
)
def test_bad_clip_grad(clip_grad: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        OptimWrapper(sgd(make_model()), clip_grad=clip_grad)


def test_bad_accumulative_counts() -> None:
    with pytest.raises(AssertionError, match="greater than or equal to 1, but got 0"):
        OptimWrapper(sgd(make_model()), accumulative_counts=0)


def test_learning_rates_and_momenta() -> None:
    parameters = list(make_model().parameters())
    groups = [{"params": parameters[:1], "lr": 0.2}, {"params": parameters[1:]}]
    one = OptimWrapper(torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
    assert (one.get_lr(), one.get_momentum()) == ({"lr": [0.1]}, {"momentum": [0.9]})
    many = OptimWrapper(torch.optim.AdamW(groups, lr=0.1, betas=(0.7, 0.9)))
    assert many.get_lr() == {"base_lr": [0.1], "lr": [0.2, 0.1]}
    assert many.get_momentum() == {"momentum": [0.7, 0.7]}
    assert len(many.param_groups) == 3
    assert many.param_groups[2] is many.base_param_settings
    assert many.defaults is many.optimizer.defaults
    none = OptimWrapper(torch.optim.Adagrad(parameters, lr=0.1))
    assert none.get_momentum() == {"momentum": [0]}


def test_repr() -> None:
    text = repr(OptimWrapper(sgd(make_model()), accumulative_counts=2))
    assert text.startswith("Type: OptimWrapper\n_accumulative_counts: 2\noptimizer: \nSGD (\n")


@pytest.mark.parametrize("clip_grad", [None, {"max_norm": 0.1}])
@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, fused.AdamW])
def test_resumes(kind: Any, num_groups: int, clip_grad: Any) -> None:
    def make() -> Any:
        model = make_model()
        parameters = list(model.parameters())
        groups = [{"params": parameters[i::num_groups]} for i in range(num_groups)]
        return model, OptimWrapper(kind(groups, lr=0.01), clip_grad=clip_grad)

    def advance(part: Any, step: int) -> Any:
        model, wrapper = part
        wrapper.update_params(model(torch.full((1, 3), float(step))).square().sum())
        return [parameter.detach() for parameter in model.parameters()]

    def state(part: Any) -> Any:
        return {"model": dict(part[0].state_dict()), "wrapper": part[1].state_dict()}

    def load(part: Any, saved: Any) -> None:
        part[0].load_state_dict(saved["model"])
        keys = list(saved["wrapper"])
        part[1].load_state_dict(saved["wrapper"])
        assert list(saved["wrapper"]) == keys  # the caller's dict stays whole

    check_save_and_resume(make, advance, state=state, load=load)
