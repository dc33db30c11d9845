"""FSDP on one process, and how its settings are given by names."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as torch_dist
from torch import nn
from torch.distributed.fsdp import CPUOffload, MixedPrecision, ShardingStrategy

from fasttrain.model import BaseModel, MMFullyShardedDataParallel
from fasttrain.model.wrappers import fully_sharded_distributed as fsdp
from fasttrain.registry import FUNCTIONS


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        output = self.linear(inputs)
        return {"loss": output.sum()} if mode == "loss" else [output]


class Steps:
    def __init__(self) -> None:
        self.loss: torch.Tensor | None = None

    def optim_context(self, model: nn.Module) -> Any:
        return nullcontext()

    def update_params(self, loss: torch.Tensor) -> None:
        self.loss = loss
        loss.backward()


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch_dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch_dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_steps_go_through_the_wrapper(one_process: None) -> None:
    model = MMFullyShardedDataParallel(
        Toy(), sharding_strategy="NO_SHARD", device_id=torch.device("cpu")
    )
    steps = Steps()
    data = {"inputs": torch.ones(3, 2)}
    log_vars = model.train_step(data, steps)  # type: ignore[arg-type]
    assert log_vars["loss"] is steps.loss
    assert model.module.linear.weight.grad.tolist() == [[3.0, 3.0]]
    with torch.no_grad():
        assert torch.equal(model.val_step(data)[0], model.test_step(data)[0])


def test_enums_by_name() -> None:
    assert fsdp._member("s", ShardingStrategy, "FULL_SHARD") is ShardingStrategy.FULL_SHARD
    assert fsdp._member("s", ShardingStrategy, None) is None
    member = ShardingStrategy.NO_SHARD
    assert fsdp._member("s", ShardingStrategy, member) is member
    with pytest.raises(ValueError, match=r"s should be one of .*'FULL_SHARD'.* got 'HALF'"):
        fsdp._member("s", ShardingStrategy, "HALF")
    with pytest.raises(TypeError, match=r"`s` should be .*'FULL_SHARD'.* has type <class 'int'>"):
        fsdp._member("s", ShardingStrategy, 1)


def test_functions_by_name_with_arguments() -> None:
    def policy(module: nn.Module, size: int = 0) -> int:
        return size

    FUNCTIONS.register_module(name="fsdp_test_policy", module=policy)
    try:
        assert fsdp._function("p", "fsdp_test_policy") is policy
        bound = fsdp._function("p", {"type": "fsdp_test_policy", "size": 3})
        assert isinstance(bound, functools.partial)
        assert bound(nn.Identity()) == 3
        assert fsdp._function("p", None) is None
    finally:
        FUNCTIONS.module_dict.pop("fsdp_test_policy")
    with pytest.raises(TypeError, match="`p` should be a str, a callable, a dict or None"):
        fsdp._function("p", 3)


def test_mixed_precision_by_names_of_dtypes() -> None:
    config = {"param_dtype": "float16", "reduce_dtype": "torch.bfloat16"}
    resolved = fsdp._mixed_precision(config)
    assert resolved == MixedPrecision(param_dtype=torch.float16, reduce_dtype=torch.bfloat16)
    assert config["param_dtype"] == "float16"
    with pytest.raises(ValueError, match="param_dtype='float99' is no dtype of torch"):
        fsdp._mixed_precision({"param_dtype": "float99"})
    assert CPUOffload(offload_params=True).offload_params


def test_ignored_parts_by_name() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    found = fsdp._with_ignored(
        model, {"ignored_modules": "0", "ignored_parameters": ["0.bias"], "sync": 1}
    )
    assert found["ignored_modules"] == [model[0]]
    assert found["ignored_states"][0] is model[0].bias
    assert (found["sync"], len(found)) == (1, 3)
    assert fsdp._with_ignored(model, {"ignored_states": [model]}) == {"ignored_states": [model]}
    assert fsdp._with_ignored(model, {"ignored_modules": None}) == {"ignored_modules": None}
    with pytest.raises(KeyError, match=r"ignored_modules has names that the model lacks: \['2'\]"):
        fsdp._with_ignored(model, {"ignored_modules": ["0", "2"]})
    with pytest.raises(TypeError, match=r"`ignored_parameters` should be .*Iterable\[nn.Parameter"):
        fsdp._with_ignored(model, {"ignored_parameters": [1]})


@pytest.mark.parametrize("name", ["cpu_offload", "mixed_precision"])
def test_wrong_types_are_named(name: str) -> None:
    with pytest.raises(TypeError, match=f"`{name}` should be `None`.*but has type <class 'str'>"):
        MMFullyShardedDataParallel(Toy(), **{name: "offload"})  # type: ignore[arg-type]
