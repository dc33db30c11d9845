"""bfloat16 training under DDP with float32 sums, on two ranks; started by test_accumulation.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fasttrain.core import dist as core_dist
from fasttrain.core import fused
from fasttrain.optim import OptimWrapper

COUNT = 24
NUM_ITERS = COUNT + 5  # the last group is not complete


class Model(nn.Module):
    """The second rank does not use its second layer for the last batch of a group."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(32, 32)
        self.second = nn.Linear(32, 32)

    def forward(self, x: Tensor, both: bool) -> Tensor:
        x = self.first(x)
        return self.second(x) if both else x


def train(rank: int, **kwargs: bool) -> tuple[list[float], float]:
    """The weights after training, and how far the reduced gradients were from float64's."""
    model = Model().bfloat16()
    parallel = DistributedDataParallel(model, find_unused_parameters=True)
    wrapper = OptimWrapper(
        fused.SGD(model.parameters(), lr=0.01, master_weights=True),
        accumulative_counts=COUNT,
        clip_grad={"max_norm": 1e6},
        **kwargs,
    )
    wrapper.initialize_count_status(parallel, 0, NUM_ITERS)
    errors = []
    exact = {p: torch.zeros(p.shape, dtype=torch.float64) for p in model.parameters()}
    for index in range(NUM_ITERS):
        generator = torch.Generator().manual_seed(2 * index + rank)
        x = torch.randn(4, 32, generator=generator).bfloat16()
        last = wrapper.should_sync()

        def loss_of(module: nn.Module, x: Tensor = x, both: bool = not last or rank == 0) -> Tensor:
            return wrapper.scale_loss(module(x, both).float().sum())

        own = torch.autograd.grad(loss_of(model), list(exact), allow_unused=True)
        for param, grad in zip(exact, own, strict=True):
            if grad is not None:
                exact[param] += grad.double()
        with wrapper.optim_context(parallel):
            loss = loss_of(parallel)
        wrapper.backward(loss)
        if not wrapper.should_update():
            continue
        for param, total in exact.items():
            torch.distributed.all_reduce(total)
            assert param.grad is not None
            error = (param.grad.double() - total / 2).norm() / (total / 2).norm()
            errors.append(float(error))
            total.zero_()
        wrapper.step()
        wrapper.zero_grad()
    return torch.cat([p.detach().float().flatten() for p in model.parameters()]).tolist(), max(
        errors
    )


def main() -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    weights, error = train(rank, accumulate_in_fp32=True)
    _, low_error = train(rank)
    shown = {"weights": weights, "error": error, "low_error": low_error}
    Path(sys.argv[1]).write_text(json.dumps(shown), encoding="utf-8")
    core_dist.leave()


if __name__ == "__main__":
    main()
