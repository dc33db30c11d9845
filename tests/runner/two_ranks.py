"""A training of two ranks whose logged scalars are averaged, and its resumption; run per rank."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn

from fasttrain.core import dist as core_dist
from fasttrain.hooks import Hook
from fasttrain.model import BaseModel
from fasttrain.runner import Runner

NUM_ITERS, INTERVAL, SAVED_AT = 12, 3, 6


class Points(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"inputs": torch.tensor([index / 48, 1.0])}


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        output = self.layer(inputs)
        return {"loss": output.square().mean(), "acc": inputs[:, 0].max()}


class Recorder(Hook):
    """Keeps what this rank's model returned, and counts the fetches that take all ranks."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(self, runner: Any, *args: Any, outputs: Any = None, **kwargs: Any) -> None:
        self.losses.append(float(outputs["loss"].detach()))
        runner.message_hub.update_scalar("train/rank", runner.rank)
        if runner.rank == 0:
            len(runner.message_hub.get_scalar("train/lr").data)  # one rank reads alone


def train(folder: str, resume: bool) -> dict[str, Any]:
    """What the hub and the log show after a run."""
    runner = Runner(
        model=Line(),
        work_dir=folder,
        train_dataloader={
            "dataset": Points(),
            "sampler": {"type": "DefaultSampler", "shuffle": True, "seed": 5},
            "batch_size": 2,
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": False, "max_iters": NUM_ITERS},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.05}},
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": INTERVAL, "average_ranks": True},
            "checkpoint": {"type": "CheckpointHook", "interval": SAVED_AT, "by_epoch": False},
        },
        log_processor={"by_epoch": False, "window_size": 5},
        visualizer={"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
        env_cfg={"dist_cfg": {"backend": "gloo"}},
        launcher="pytorch",
        log_level="ERROR",
        load_from=f"{folder}/iter_{SAVED_AT}.pth" if resume else None,
        resume=resume,
        experiment_name=f"resumed_{resume}",
    )
    recorder = Recorder()
    runner.register_hook(recorder)
    calls: list[int] = []
    reduce = torch.distributed.all_reduce

    def count(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if tensor.dtype == torch.float64:  # the scalars; gradients are float32
            calls.append(tensor.numel())
        return reduce(tensor, *args, **kwargs)

    torch.distributed.all_reduce = count
    try:
        runner.train()
    finally:
        torch.distributed.all_reduce = reduce
    tags = []
    for path in sorted(Path(folder).glob("*/vis_data/scalars.json")):
        tags = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        "own": recorder.losses,
        "calls": calls,
        "shown": {k: b.data[0].tolist() for k, b in runner.message_hub.log_scalars.items()},
        "notes": {k: runner.message_hub.get_info(k) for k in ("iter", "max_iters")},
        "tags": tags,
    }


def main() -> None:
    folder, output = sys.argv[1:]
    results = [train(folder, resume) for resume in (False, True)]
    Path(output).write_text(json.dumps(results), encoding="utf-8")
    core_dist.leave()


if __name__ == "__main__":
    main()
