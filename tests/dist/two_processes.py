"""What two processes check together; run once per rank by test_two_processes.py."""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fasttrain import dist
from fasttrain.core import dist as core_dist
from fasttrain.dataset import DefaultSampler, InfiniteSampler
from fasttrain.evaluator import BaseMetric, Evaluator
from fasttrain.model import (
    BaseModel,
    MMDistributedDataParallel,
    MMSeparateDistributedDataParallel,
    is_model_wrapper,
)
from fasttrain.optim import OptimWrapper


def check_info(rank: int) -> None:
    assert dist.get_dist_info() == (rank, 2)
    assert dist.get_backend() == "gloo"
    assert dist.is_main_process() == (rank == 0)
    assert dist.get_default_group() is not None
    assert dist.get_comm_device() == torch.device("cpu")
    dist.barrier()


def check_local_group(rank: int) -> None:
    try:
        dist.get_local_rank()
    except RuntimeError as error:
        assert "please use `init_local_group`" in str(error)
    else:
        raise AssertionError("a local group before init_local_group")
    dist.init_local_group(0, 2)
    assert (dist.get_local_rank(), dist.get_local_size()) == (rank, 2)


def check_all_reduce(rank: int) -> None:
    for op, expected in {"sum": 3.0, "mean": 1.5, "max": 2.0, "min": 1.0, "product": 2.0}.items():
        strided = torch.full((2, 3), float(rank + 1)).t()
        dist.all_reduce(strided, op)
        assert strided.tolist() == [[expected] * 2] * 3, op
    whole = torch.tensor([rank + 2])
    dist.all_reduce(whole, "mean")
    assert whole.dtype == torch.int64
    assert whole.item() == 2  # 5 / 2, truncated
    leaf = torch.ones(2, requires_grad=True)
    dist.all_reduce(leaf)
    assert leaf.tolist() == [2.0, 2.0]


def check_all_reduce_dict(rank: int) -> None:
    data = {"b": torch.full((2,), float(rank)), "a": torch.tensor(4.0)}
    if rank:
        data = dict(reversed(data.items()))
    dist.all_reduce_dict(data, "mean")
    assert data["b"].tolist() == [0.5, 0.5]
    assert data["a"].shape == ()
    assert data["a"].item() == 4.0


def check_gather(rank: int) -> None:
    mine = torch.tensor([rank, 10 + rank])
    assert [part.tolist() for part in dist.all_gather(mine)] == [[0, 10], [1, 11]]
    gathered = dist.gather(mine, dst=1)
    assert [part.tolist() for part in gathered] == ([[0, 10], [1, 11]] if rank == 1 else [])
    assert dist.all_gather_object({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert dist.gather_object(str(rank), dst=0) == (["0", "1"] if rank == 0 else None)


def check_broadcast(rank: int) -> None:
    tensor = torch.full((3,), float(rank))
    dist.broadcast(tensor, src=1)
    assert tensor.tolist() == [1.0] * 3
    objects: list[Any] = ["a", 1] if rank == 0 else [None, None]
    dist.broadcast_object_list(objects)
    assert objects == ["a", 1]
    assert core_dist.broadcast_object(rank + 5, src=1) == 6


def check_random_seed(rank: int) -> None:
    np.random.seed(rank)
    seeds = dist.all_gather_object(dist.sync_random_seed())
    assert seeds[0] == seeds[1]


def check_all_reduce_params(rank: int) -> None:
    for coalesce, bucket_size_mb in ((True, -1), (True, 1), (False, -1)):
        params = [torch.full((size,), float(rank)) for size in (3, 1, 5)]
        params.append(torch.full((2,), float(rank), dtype=torch.float64))
        dist.all_reduce_params(iter(params), coalesce, bucket_size_mb, "mean")
        assert [param.unique().tolist() for param in params] == [[0.5]] * 4


def check_collect_results(rank: int) -> None:
    parts = [[0, 2, 4], [1, 3, 0]]
    expected = [0, 1, 2, 3, 4] if rank == 0 else None
    assert dist.collect_results(parts[rank], 5, "gpu") == expected
    assert dist.collect_results(parts[rank], 5, "cpu") == expected
    assert dist.collect_results(parts[rank], 5, "cpu", tmpdir="shared_folder") == expected
    dist.barrier()
    assert not Path("shared_folder").exists()
    assert list(Path(".dist_test").iterdir()) == []


def check_samplers(rank: int) -> None:
    whole = [5, 4, 0, 1] if rank == 0 else [3, 6, 2, 5]
    assert list(DefaultSampler(range(7), seed=3)) == whole
    assert list(DefaultSampler(range(7), seed=3, round_up=False)) == whole[: 4 - rank]
    seeds = dist.all_gather_object(DefaultSampler(range(7)).seed)
    assert seeds[0] == seeds[1]
    stream = zip(range(7), InfiniteSampler(range(5), seed=3), strict=False)
    assert [index for _, index in stream] == (
        [0, 4, 0, 2, 3, 4, 0] if rank else [1, 3, 2, 1, 4, 1, 3]
    )


class Ranks(BaseMetric):
    default_prefix = "ranks"

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += data_samples

    def compute_metrics(self, results: list) -> dict:
        assert dist.is_main_process()
        return {"all": results}


def check_evaluator(rank: int) -> None:
    evaluator = Evaluator(Ranks())
    evaluator.process([rank, rank + 2])
    assert evaluator.evaluate(3) == {"ranks/all": [0, 1, 2]}


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(2, 1)
        self.frozen = nn.Linear(2, 1).requires_grad_(False)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        output = self.left(inputs)
        return {"loss": output.sum()} if mode == "loss" else output


class Steps:
    """As much of an optimizer wrapper as a train_step needs."""

    def __init__(self) -> None:
        self.models: list[nn.Module] = []

    @contextmanager
    def optim_context(self, model: nn.Module) -> Any:
        self.models.append(model)
        yield

    def update_params(self, loss: torch.Tensor) -> None:
        loss.backward()


def check_distributed_model(rank: int) -> None:
    model = MMDistributedDataParallel(Toy())
    assert is_model_wrapper(model)
    steps = Steps()
    log_vars = model.train_step({"inputs": torch.full((1, 2), float(rank + 1))}, steps)
    assert steps.models == [model]
    assert list(log_vars) == ["loss"]
    assert model.module.left.weight.grad.tolist() == [[1.5, 1.5]]  # the mean of both ranks
    inputs = {"inputs": torch.ones(1, 2)}
    assert torch.equal(model.val_step(inputs), model.test_step(inputs))


def check_accumulation_synchronizes_only_when_due(rank: int) -> None:
    model = MMDistributedDataParallel(Toy(), detect_anomalous_params=True)
    layer = model.module.left
    before = layer.weight.detach().clone()
    wrapper = OptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    data = {"inputs": torch.full((1, 2), float(rank + 1))}
    model.train_step(data, wrapper)
    assert layer.weight.grad.tolist() == [[(rank + 1) / 2] * 2]  # still this rank's own
    model.train_step(data, wrapper)
    assert torch.allclose(layer.weight, before - 1.5)


def check_separately_distributed_model(rank: int) -> None:
    class Halves(Toy):
        def train_step(self, data: Any, optim_wrapper: Any) -> dict:
            loss = self.left(data).sum()
            loss.backward()
            return {"loss": loss}

    model = MMSeparateDistributedDataParallel(Halves())
    assert is_model_wrapper(model)
    assert type(model.module.left) is MMDistributedDataParallel
    assert type(model.module.frozen) is nn.Linear
    data = torch.full((1, 2), float(rank + 1))
    with model.no_sync():
        model.train_step(data, None)
    assert model.module.left.module.weight.grad.tolist() == [[rank + 1.0] * 2]
    model.module.left.zero_grad()
    model.train_step(data, None)
    assert model.module.left.module.weight.grad.tolist() == [[1.5, 1.5]]
    assert not model.train(False).module.left.training


CHECKS = {name: value for name, value in globals().items() if name.startswith("check_")}


def main() -> None:
    rank = int(os.environ["RANK"])
    dist.init_dist("pytorch", backend="gloo", timeout=60)
    verdicts = {}
    for name, check in CHECKS.items():
        try:
            check(rank)
            verdicts[name] = "ok"
        except Exception:
            verdicts[name] = traceback.format_exc()
    Path(sys.argv[1]).write_text(json.dumps(verdicts), encoding="utf-8")
    core_dist.leave()


if __name__ == "__main__":
    main()
