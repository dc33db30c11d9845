"""One device: moving and compiling a model."""

import torch
from torch import nn

from fasttrain.core.strategy import SingleDevice


def test_prepare_moves_in_place() -> None:
    model = nn.Linear(2, 2)
    assert SingleDevice("cpu").prepare(model) is model
    assert SingleDevice("meta").prepare(model).weight.is_meta


def test_device_is_chosen_by_what_there_is() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert SingleDevice().device.type == expected


def test_compile_replaces_one_method() -> None:
    model = nn.Linear(2, 1)
    inputs = torch.randn(3, 2)
    expected = model(inputs)
    SingleDevice("cpu").compile(model, {"backend": "eager"})
    assert hasattr(model.forward, "_torchdynamo_orig_callable")
    assert torch.equal(model(inputs), expected)
