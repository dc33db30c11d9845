"""Putting a model on its device, initialising and compiling it."""

from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.model import BaseModel
from fasttrain.runner.builders import compile_model, init_weights, wrap_model
from fasttrain.runner.builders.model import unwrapped


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.initialised = 0

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
        return self.linear(inputs)

    def init_weights(self) -> None:
        self.initialised += 1


class OwnStep(Toy):
    def train_step(self, data: Any, optim_wrapper: Any) -> dict:
        return {"loss": self(data)}


def test_a_single_process_gets_the_bare_model() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(2))
    wrapped = wrap_model(
        model, {"type": "MMDistributedDataParallel"}, distributed=False, sync_bn=None
    )
    assert isinstance(wrapped[0], nn.modules.batchnorm._BatchNorm)
    assert not isinstance(wrapped[0], nn.SyncBatchNorm)
    assert unwrapped(wrapped) is wrapped


def test_a_wrapped_model_stays() -> None:
    model = nn.DataParallel(nn.Linear(1, 1))
    assert wrap_model(model, None, distributed=True, sync_bn=None) is model
    assert unwrapped(model) is model.module
    with pytest.raises(TypeError, match='"model_wrapper_cfg" should be None, but got'):
        wrap_model(model, {"type": "X"}, distributed=True, sync_bn=None)


def test_init_weights_where_there_is_one() -> None:
    model = Toy()
    init_weights(model)
    assert model.initialised == 1
    init_weights(nn.Linear(1, 1))


@pytest.mark.parametrize("options", [None, False, {"disable": True, "backend": "eager"}])
def test_not_compiled_unless_asked(options: Any) -> None:
    model = Toy()
    compile_model(model, options, "train_step")
    assert "forward" not in vars(model)


def test_the_forward_is_compiled_once() -> None:
    model, options = Toy(), {"backend": "eager"}
    compile_model(model, options, "train_step")
    compiled = model.forward
    compile_model(model, options, "val_step")
    assert model.forward is compiled
    assert options == {"backend": "eager"}
    x = torch.ones(1, 2)
    assert torch.equal(model(x), model.linear(x))


def test_a_step_of_ones_own_is_compiled_whole() -> None:
    model = OwnStep()
    compile_model(model, {"backend": "eager"}, "train_step")
    assert "train_step" in vars(model)
    assert "forward" not in vars(model)
