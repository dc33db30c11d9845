"""Settings of fully_shard given by names; runs with it: tests/runner/resume_two_processes.py."""

import pytest
import torch
from torch import nn

from fasttrain.model.wrappers import fully_shard
from fasttrain.registry import MODEL_WRAPPERS


def make_model() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 1))


def test_layers_by_their_classes_the_inner_ones_first():
    model = make_model()
    found = fully_shard._named_layers(model, ["Linear", "Sequential"])
    assert found == [model[1], model[0][0], model[0]]
    assert fully_shard._named_layers(model, []) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"layers": ["Linear", "Block"]},
            r"layers names \['Block'\], but Sequential has submodules of the classes "
            r"\['Linear', 'ReLU', 'Sequential'\] only",
        ),
        (
            {"param_dtype": "float99"},
            "param_dtype must be a dtype such as .*, got 'float99'",
        ),
        ({"reduce_dtype": "nn"}, "reduce_dtype must be a dtype such as 'bfloat16', got 'nn'"),
    ],
)
def test_bad_settings_say_what_is_there(options, text):
    with pytest.raises(ValueError, match=text):
        MODEL_WRAPPERS.build({"type": "fully_shard", "module": make_model(), **options})


@pytest.mark.parametrize("given", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_dtypes_by_name(given):
    assert fully_shard._dtype("param_dtype", given) is torch.bfloat16
