"""What is backpropagated: the sum of the losses, by whatever way."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor

from fasttrain.engine.loss_sum import backward_root


def gradient_of(losses: dict[str, Tensor], x: Tensor) -> Tensor:
    x.grad = None
    root, gradient, _ = backward_root(losses)
    root.backward(gradient)
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("count", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_gradient_is_that_of_the_sum(count: int, shape: tuple[int, ...]) -> None:
    x = torch.linspace(1, 2, count, requires_grad=True)
    losses = {f"loss_{i}": (x[i] ** (i + 2)).reshape(shape) for i in range(count)}
    losses["top_Acc"] = x.detach().mean()
    expected = torch.tensor([(i + 2) * x[i].item() ** (i + 1) for i in range(count)])
    torch.testing.assert_close(gradient_of(losses, x), expected)


def test_mixed_shapes_and_types_are_summed() -> None:
    x = torch.ones(5, requires_grad=True)
    losses = {"a": x[0], "b": x[1:2], "c": x[2].double(), "d": x[3], "e": x[4].half()}
    torch.testing.assert_close(gradient_of(losses, x), torch.ones(5))


def test_all_losses_stand_in_one_tensor_where_there_is_one() -> None:
    losses = {f"loss_{i}": torch.tensor(float(i)) for i in range(5)}
    _, _, found = backward_root(OrderedDict(losses))
    assert found == losses
    assert found.stacked is not None and found.stacked.tolist() == [0, 1, 2, 3, 4]
    _, _, with_metric = backward_root({**losses, "acc": torch.tensor(9.0)})
    assert with_metric.stacked is None


@pytest.mark.parametrize("count", [1, 6])
def test_what_is_no_scalar_is_named(count: int) -> None:
    losses = {f"loss_{i}": torch.tensor(1.0) for i in range(count)}
    with pytest.raises(TypeError, match=r"loss 'bad' must be a scalar tensor, got \(3,\); reduce"):
        backward_root({**losses, "bad": torch.ones(3)})
    with pytest.raises(TypeError, match="loss 'bad' must be a scalar tensor, got float"):
        backward_root({**losses, "bad": 1.0})
    with pytest.raises(TypeError, match="loss tensor or a dict of them, got list"):
        backward_root([torch.ones(())])
    with pytest.raises(ValueError, match=r"no loss to backpropagate among \['acc'\]"):
        backward_root({"acc": torch.ones(())})


def test_losses_all_of_one_wrong_shape_are_named() -> None:
    with pytest.raises(TypeError, match=r"loss 'a' must be a scalar tensor, got \(2,\)"):
        backward_root({name: torch.ones(2) for name in "abcdef"})
