"""The steps of a model and how its losses are joined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.model import BaseDataPreprocessor, BaseModel, ImgDataPreprocessor
from fasttrain.registry import MODELS


class Toy(BaseModel):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.linear = nn.Linear(2, 1)
        self.calls: list[tuple[tuple, dict]] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        if kwargs["mode"] == "loss":
            return {"loss": self.linear(kwargs["inputs"]).sum(), "acc": torch.tensor(0.5)}
        return ["prediction"]


class Wrapper:
    """Records what a train_step does with its optimizer wrapper, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        self.events.append(("enter", model))
        yield
        self.events.append("exit")

    def update_params(self, loss: torch.Tensor) -> None:
        self.events.append(("update", loss))


def test_train_step_runs_forward_inside_the_context_and_updates_after_it() -> None:
    model, wrapper = Toy(), Wrapper()
    log_vars = model.train_step({"inputs": torch.ones(3, 2)}, wrapper)  # type: ignore[arg-type]
    assert list(log_vars) == ["loss", "acc"]
    assert wrapper.events == [("enter", model), "exit", ("update", log_vars["loss"])]
    assert log_vars["loss"].grad_fn is not None
    assert model.calls[0][1]["mode"] == "loss"


def test_val_and_test_step_predict() -> None:
    model = Toy()
    assert model.val_step({"inputs": 1}) == ["prediction"]
    assert model.test_step([1, 2]) == ["prediction"]
    assert model.val_step((3,)) == ["prediction"]
    assert model.calls == [
        ((), {"inputs": 1, "mode": "predict"}),
        ((1, 2), {"mode": "predict"}),
        ((3,), {"mode": "predict"}),
    ]


def test_what_cannot_be_spread_over_arguments() -> None:
    with pytest.raises(TypeError, match=r"should be list, tuple or dict, but got .*Tensor"):
        Toy().val_step(torch.ones(2))  # type: ignore[arg-type]


def parsed(losses: dict) -> tuple[Any, dict[str, Any]]:
    total, log_vars = Toy().parse_losses(losses)
    return total, {name: float(value) for name, value in log_vars.items()}


def test_losses_are_averaged_and_summed_by_name() -> None:
    losses = {
        "a_loss": torch.tensor([2.0, 3.0]),
        "acc": torch.tensor(1.0),
        "loss_b": [torch.tensor([1.0, 2.0]), torch.tensor(3.0)],
    }
    total, log_vars = parsed(losses)
    assert total == 7.0
    assert list(log_vars.items()) == [("loss", 7.0), ("a_loss", 2.5), ("acc", 1.0), ("loss_b", 4.5)]


def test_a_single_loss_passes_through_untouched() -> None:
    loss = torch.tensor(2.0, requires_grad=True)
    total, log_vars = Toy().parse_losses({"loss": loss})
    assert total is loss
    assert list(log_vars) == ["loss"]


def test_a_loss_called_loss_is_logged_itself() -> None:
    total, log_vars = parsed({"a_loss": torch.tensor(2.0), "loss": torch.tensor(3.0)})
    assert total == 5.0
    assert list(log_vars.items()) == [("loss", 3.0), ("a_loss", 2.0)]


def test_without_a_loss_the_sum_is_zero() -> None:
    assert parsed({"acc": torch.tensor(1.0)}) == (0, {"loss": 0.0, "acc": 1.0})


@pytest.mark.parametrize("value", [1.0, [1.0], (torch.ones(1),), None])
def test_losses_that_are_no_tensors(value: Any) -> None:
    with pytest.raises(TypeError, match="loss_x is not a tensor or list of tensors"):
        Toy().parse_losses({"loss_x": value})


def test_gradients_reach_every_term() -> None:
    first, second = torch.ones(2, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    total, _ = Toy().parse_losses({"loss_a": first, "loss_b": [second, second]})
    total.backward()
    assert first.grad is not None
    assert first.grad.tolist() == [0.5, 0.5]
    assert second.grad is not None
    assert second.grad.item() == 2.0


def test_many_losses_have_the_same_sum_and_gradients() -> None:
    weights = torch.randn(12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = {f"loss_{i}": weight * (i + 1) for i, weight in enumerate(weights.unbind())}
    total, log_vars = Toy().parse_losses({**losses, "acc": torch.tensor(0.5)})
    torch.testing.assert_close(total, (weights * torch.arange(1, 13)).sum())
    assert list(log_vars) == ["loss", *losses, "acc"] and log_vars["loss"] is total
    total.backward()
    assert weights.grad is not None and weights.grad.tolist() == list(range(1, 13))


def test_the_preprocessor_comes_from_nothing_a_config_or_a_module() -> None:
    assert type(Toy().data_preprocessor) is BaseDataPreprocessor
    built = Toy(data_preprocessor=dict(type="ImgDataPreprocessor", pad_size_divisor=8))
    assert isinstance(built.data_preprocessor, ImgDataPreprocessor)
    own = nn.Identity()
    assert Toy(data_preprocessor=own).data_preprocessor is own
    with pytest.raises(
        TypeError, match=r"should be a `dict` or `nn.Module` instance, but got <class 'int'>"
    ):
        Toy(data_preprocessor=1)


def test_the_preprocessor_follows_the_model() -> None:
    model = Toy().to("meta")
    assert model.data_preprocessor.device == torch.device("meta")
    assert model.linear.weight.is_meta


def test_forward_is_abstract_and_models_register() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseModel()  # type: ignore[abstract]
    assert MODELS.get("BaseDataPreprocessor") is BaseDataPreprocessor
