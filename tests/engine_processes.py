"""What each of two processes does in the engine's distributed tests; the tests read its report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from engine_toys import Accuracy, Classifier, Rows, register, toy_cfg, values
from fasttrain.engine import DefaultTrainer, HookBase, SimpleTrainer, comm, default_setup
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    EVALUATION_REGISTRY,
    META_ARCH_REGISTRY,
)

STEPS = 6


class Regression(nn.Module):
    """Two losses of a linear model whose weights begin the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 1)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        out = self.net(batch)
        return {"loss_a": (out**2).mean(), "loss_b": (out - 1).abs().mean()}


def all_batches() -> list[Tensor]:
    """One batch of 8 per step; process r sees rows 4 r to 4 r + 3."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 4, generator=generator) for _ in range(STEPS)]


class Waiting:
    """Batches of this process; process 1 waits for each of them."""

    def __init__(self, rank: int, batches: list[Tensor]) -> None:
        self.rank, self.batches = rank, batches

    def __iter__(self) -> Any:
        for batch in self.batches:
            time.sleep(0.02 * self.rank)
            yield batch[4 * self.rank : 4 * self.rank + 4]


def simple_trainer(rank: int, batches: list[Tensor], **options: Any) -> SimpleTrainer:
    model = nn.parallel.DistributedDataParallel(Regression())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return SimpleTrainer(model, Waiting(rank, batches), optimizer, **options)


def weights_of(model: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def gathers(rank: int, folder: Path) -> dict[str, Any]:
    trainer = simple_trainer(rank, all_batches())
    trainer.train(0, STEPS)
    return {
        "weights": weights_of(trainer.model),
        "losses": {name: values(trainer, name) for name in ("loss_a", "loss_b", "total_loss")},
        "data_time": min(values(trainer, "data_time")),
    }


def accumulates(rank: int, folder: Path) -> dict[str, Any]:
    trainer = simple_trainer(rank, all_batches(), accumulation=2)
    reduced: list[int] = []

    def hook(state: Any, bucket: Any) -> Any:
        reduced.append(trainer.iter)
        future: Any = torch.futures.Future()
        comm.dist.all_reduce(bucket.buffer(), "mean")
        future.set_result(bucket.buffer())
        return future

    hook.__annotations__.clear()  # torch accepts its own types or none, but no strings
    trainer.model.register_comm_hook(None, hook)  # type: ignore[operator]
    trainer.train(0, STEPS)
    return {"weights": weights_of(trainer.model), "reduced": reduced}


def raises_everywhere(rank: int, folder: Path) -> dict[str, Any]:
    """The loss of process 1 alone is NaN at step 2."""
    batches = all_batches()
    batches[2] = batches[2].clone()
    batches[2][4:] = torch.nan
    trainer = simple_trainer(rank, batches)
    try:
        trainer.train(0, STEPS)
    except FloatingPointError as error:
        return {"error": str(error).splitlines()[0], "iter": trainer.iter}
    return {"error": None}


@register(META_ARCH_REGISTRY, "ToyClassifier")
class Toy(Classifier):
    pass


register(DATASETS_REGISTRY, "toy_rows")(lambda cfg, stage: Rows())
register(EVALUATION_REGISTRY, "ToyAccuracy")(Accuracy)


class Stopping(HookBase):
    """Ends every process behind the second epoch's checkpoint."""

    def after_step(self) -> None:
        if self.trainer.iter == 4:
            raise KeyboardInterrupt


def default_cfg(folder: Path) -> Any:
    return toy_cfg(
        folder,
        "ToyClassifier",
        "toy_rows",
        DATASETS__VAL="toy_rows",
        INFERENCE__NAME="ToyAccuracy",
        MODEL__USE_EMA=True,
        SOLVER__CHECKPOINT_PERIOD=1,
        SOLVER__WRITE_PERIOD=2,
        SOLVER__REFERENCE_WORLD_SIZE=1,
    )


def runs_by_config(rank: int, folder: Path) -> dict[str, Any]:
    """A whole run, and one that is stopped and resumed."""
    default_setup(default_cfg(folder / "whole"), SimpleNamespace(eval_only=False))
    drawn = torch.rand(1).item()
    whole = DefaultTrainer(default_cfg(folder / "whole"))
    whole.train()
    cut = DefaultTrainer(default_cfg(folder / "cut"))
    cut.register_hooks([Stopping()])
    try:
        cut.train()
    except KeyboardInterrupt:
        comm.synchronize()  # process 0 has finished its file
    resumed = DefaultTrainer(default_cfg(folder / "cut"))
    resumed.resume_or_load()
    started_at = resumed.start_iter
    resumed.train()
    assert whole.ema is not None and resumed.ema is not None
    return {
        "drawn": drawn,
        "lr": whole.optimizer.param_groups[0]["lr"],
        "iters_per_epoch": whole.iters_per_epoch,
        "epochs": whole.val_evaluator.epochs,
        "hooks": [type(hook).__name__ for hook in whole._hooks],
        "started_at": started_at,
        "weights": [weights_of(whole.model), weights_of(resumed.model)],
        "ema": [weights_of(whole.ema.module), weights_of(resumed.ema.module)],
        "losses": [values(whole, "total_loss"), values(resumed, "total_loss")],
    }


def talks(rank: int, folder: Path) -> dict[str, Any]:
    mine = {"a": torch.tensor(float(rank)), "b": torch.tensor(2.0)}
    return {
        "gathered": [len(text) for text in comm.all_gather("x" * (1 + 1000 * rank))],
        "at_1": comm.gather(rank, dst=1),
        "mean": {name: value.item() for name, value in comm.reduce_dict(mine).items()},
        "sum": {name: v.item() for name, v in comm.reduce_dict(mine, average=False).items()},
        "seed": comm.shared_random_seed(),
        "local": [comm.get_local_rank(), comm.get_local_size()],
    }


SCENES: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    scene.__name__: scene
    for scene in (gathers, accumulates, raises_everywhere, runs_by_config, talks)
}


def play(folder: str) -> None:
    """Play every scene; the report goes to `rank<N>.json`."""
    rank = comm.get_rank()
    report = {name: scene(rank, Path(folder)) for name, scene in SCENES.items()}
    Path(folder, f"rank{rank}.json").write_text(json.dumps(report), encoding="utf-8")
