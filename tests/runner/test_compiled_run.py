"""A run with `compile` in its config trains as one without it, on graphs made once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from fasttrain.config import Config
from fasttrain.model import BaseModel
from fasttrain.registry import MODELS
from fasttrain.runner import Runner
from support import assert_same

NUM_ITERS = 20


@MODELS.register_module(force=True)
class SmallNet(BaseModel):
    """Two layers and a squared error."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return {"loss": (self.layers(inputs).squeeze(-1) - data_samples).square().mean()}


@pytest.fixture(autouse=True)
def strict_compiler() -> Iterator[None]:
    """A compiler without memory of other tests, for which compiling anything twice is an error."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


@pytest.fixture
def weights_after(make_cfg: Callable[..., dict[str, Any]]) -> Callable[..., list[torch.Tensor]]:
    """Trains the toy model at a rate that falls in every iteration; its weights afterwards."""
    runs = []

    def train(compile_options: Any, **optim_wrapper: Any) -> list[torch.Tensor]:
        cfg = Config(
            make_cfg(
                model={"type": "SmallNet"},
                experiment_name=f"compiled_run_{len(runs)}",
                train_cfg={"by_epoch": False, "max_iters": NUM_ITERS},
                train_dataloader={
                    "dataset": {"type": "LineData"},
                    "sampler": {"type": "InfiniteSampler", "shuffle": True},
                    "collate_fn": {"type": "default_collate"},
                    "batch_size": 3,
                    "num_workers": 0,
                },
                optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}, **optim_wrapper},
                param_scheduler={
                    "type": "LinearLR",
                    "start_factor": 0.01,
                    "by_epoch": False,
                    "end": NUM_ITERS,
                },
                val_dataloader=None,
                val_cfg=None,
                val_evaluator=None,
            )
        )
        cfg.compile = compile_options
        runs.append(Runner.from_cfg(cfg))
        runs[-1].train()
        return [p.detach() for p in runs[-1].model.parameters()]

    return train


# With accumulation the schedule moves before the first step.
@pytest.mark.filterwarnings("ignore:Detected call of `scheduler.step")
@pytest.mark.parametrize(
    "optim_wrapper",
    [
        {},
        {"clip_grad": {"max_norm": 0.1}},
        {"clip_grad": {"max_norm": 0.1}, "accumulative_counts": 3},
        {"clip_grad": {"max_norm": 0.1}, "type": "AmpOptimWrapper", "dtype": "bfloat16"},
    ],
    ids=["plain", "clip", "accumulation", "amp"],
)
def test_equals_the_eager_run(weights_after: Any, optim_wrapper: dict[str, Any]) -> None:
    expected = weights_after(False, **optim_wrapper)
    options = {"backend": "eager", "fullgraph": True}
    assert_same(expected, weights_after(options, **optim_wrapper))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
