"""Runs on two ranks that are stopped and resumed; started by test_resume_on_two_ranks.py."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from early_ends import CtrlCAt, Stop, StopAt
from fasttrain import dist
from fasttrain.core import dist as core_dist
from fasttrain.core import sharding
from fasttrain.core.checkpoint import load
from fasttrain.core.checkpoint.ranks import unpack
from fasttrain.hooks import Hook
from fasttrain.registry import MODELS
from fasttrain.runner import Runner, rank_states
from fasttrain.runner.builders.model import unwrapped
from support import assert_same

PARTS = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("conftest.py"))
toy = importlib.util.module_from_spec(PARTS)
PARTS.loader.exec_module(toy)

BY_EPOCH = {"by_epoch": True, "max_epochs": 3}
BY_ITER = {"by_epoch": False, "max_iters": 12}


class Watch(StopAt):
    """Notes the batches of this rank, and ends the run hard behind an iteration."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__(last)
        self.batches: list[torch.Tensor] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.batches.append(data_batch["inputs"].clone())


def run(
    folder: str, *, last: int | None = None, hooks: Sequence[Hook] = (), **changes: Any
) -> tuple[Runner, list]:
    """Train, stopped hard behind iteration `last`; the batches that this rank saw."""
    cfg = {
        "model": {"type": "LineModel"},
        "work_dir": str(Path.cwd() / folder),
        "train_dataloader": loader(0),
        "train_cfg": BY_EPOCH,
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "interval": 2, "by_epoch": False}
        },
        "randomness": {"seed": 7, "diff_rank_seed": True},
        "launcher": "pytorch",
        "env_cfg": {"dist_cfg": {"backend": "gloo"}},
        "log_level": "ERROR",
        **changes,
    }
    runner = Runner.from_cfg(cfg)
    watch = Watch(last)
    runner.register_hook(watch)
    for hook in hooks:
        runner.register_hook(hook)
    try:
        runner.train()
    except Stop:
        assert last is not None
    except KeyboardInterrupt:
        assert hooks
    return runner, watch.batches


@MODELS.register_module()
class HalfModel(toy.LineModel):
    """The toy model in bfloat16."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bfloat16()

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return super().forward(inputs.bfloat16(), data_samples, mode)


def loader(workers: int, sampler: str = "DefaultSampler", **changes: Any) -> dict[str, Any]:
    return {
        "dataset": {"type": "LineData", "length": 24, "noise": True},
        "sampler": {"type": sampler, "shuffle": True},
        "collate_fn": {"type": "default_collate"},
        "batch_size": 3,
        "num_workers": workers,
        **changes,
    }


def weights(runner: Runner) -> dict[str, Any]:
    state = runner.optim_wrapper.optimizer.state.values()
    return {
        "model": {k: v.clone() for k, v in runner.model.module.state_dict().items()},
        "momentum": [entry["momentum_buffer"].clone() for entry in state],
    }


def check_equals_uninterrupted(name: str, **options: Any) -> None:
    whole, seen = run(f"{name}_whole", **options)
    assert len(seen) == 12
    run(f"{name}_cut", last=7, **options)
    resumed, rest = run(f"{name}_cut", resume=True, **options)
    assert resumed.iter == 12
    assert_same(rest, seen[6:])
    assert_same(weights(resumed), weights(whole))
    mine = torch.get_rng_state()
    states = dist.all_gather_object(mine)
    assert not torch.equal(states[0], states[1])


def check_epochs(rank: int) -> None:
    check_equals_uninterrupted("epochs")


def check_epochs_with_workers(rank: int) -> None:
    check_equals_uninterrupted("workers", train_dataloader=loader(2))


def check_persistent_workers(rank: int) -> None:
    options = loader(2, persistent_workers=True)
    check_equals_uninterrupted("persistent", train_dataloader=options)


def check_endless_iterations(rank: int) -> None:
    options = loader(0, "InfiniteSampler")
    check_equals_uninterrupted("endless", train_dataloader=options, train_cfg=BY_ITER)


def check_accumulation_cut_midway(rank: int) -> None:
    """The ranks' gradients are averaged, so the end is the same but for rounding."""
    wrapper = {
        "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
        "accumulative_counts": 4,
    }
    options = {"optim_wrapper": wrapper, "train_cfg": BY_ITER}
    whole, seen = run("sums_whole", **options)
    run("sums_cut", last=7, **options)
    resumed, rest = run("sums_cut", resume=True, **options)
    assert_same(rest, seen[6:])
    for name, weight in weights(whole)["model"].items():
        torch.testing.assert_close(weights(resumed)["model"][name], weight, msg=name)


def check_float32_sums_cut_midway(rank: int) -> None:
    """Each rank's own sums are averaged, so the end is the same but for rounding."""
    wrapper = {
        "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
        "accumulative_counts": 4,
        "accumulate_in_fp32": True,
    }
    model = {"type": "HalfModel"}
    options = {"optim_wrapper": wrapper, "train_cfg": BY_ITER, "model": model}
    whole, seen = run("halves_whole", **options)
    run("halves_cut", last=7, **options)
    if rank == 0:
        sums = load("halves_cut/iter_6.pth")["optimizer"]["gradient_sums"]
        assert {total.dtype for total in sums.values()} == {torch.float32}
    resumed, rest = run("halves_cut", resume=True, **options)
    assert_same(rest, seen[6:])
    for name, weight in weights(whole)["model"].items():
        found = weights(resumed)["model"][name]
        torch.testing.assert_close(found, weight, msg=name, rtol=0.01, atol=0.0)


def check_a_parameter_that_one_rank_has_not_used(rank: int) -> None:
    """The ranks agree on whose gradients they average; the others' count as zero."""
    own = {("both",): torch.full((2,), 1.0 + rank)}
    if rank == 1:
        own["", 3] = torch.full((1,), 4.0)
    mean = rank_states._mean(own)
    assert_same(mean, {("", 3): torch.tensor([2.0]), ("both",): torch.tensor([1.5, 1.5])})


def check_ctrl_c_stops_all_ranks_behind_one_iteration(rank: int) -> None:
    """Whichever rank it reaches first, with and without accumulation; resuming loses nothing."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for count, moments in ((1, (4, 5)), (1, (5, 4)), (1, (4, 4)), (4, (3, 6))):
        name = f"ctrl_c_{count}_{moments[0]}_{moments[1]}"
        wrapper = {
            "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
            "accumulative_counts": count,
        }
        options = {"optim_wrapper": wrapper, "train_cfg": BY_ITER}
        whole, seen = run(f"{name}_whole", **options)
        stopped, begun = run(name, hooks=[CtrlCAt(moments[rank])], **options)
        ends = dist.all_gather_object(stopped.iter)
        assert ends == [len(begun)] * 2 and max(moments) <= len(begun) <= max(moments) + count, ends
        (other,) = load(f"{name}/iter_{len(begun)}.pth")["fasttrain"]["other_ranks"]
        assert other is not None
        resumed, rest = run(name, resume=True, **options)
        assert resumed.iter == 12
        assert_same(begun + rest, seen)
        for key, weight in weights(whole)["model"].items():
            torch.testing.assert_close(weights(resumed)["model"][key], weight, msg=key)


def check_two_saves_of_one_name_are_not_mixed_up(rank: int) -> None:
    """Rank 1 has left its states for both before rank 0 takes the first."""
    states = rank_states.RankStates("twice", logging.getLogger("twice"))
    if rank == 1:
        for number in (1, 2):
            states.gather("a.pth", {"number": number}, None)
    dist.barrier()
    if rank == 0:
        for number in (1, 2):
            (packed,), _ = states.gather("a.pth", {}, None, interrupted=True)
            assert packed is not None
            assert unpack(packed) == {"number": number}
    dist.barrier()


def check_save_on_one_rank(rank: int) -> None:
    """Rank 0 does not hang, and says what is missing; the others derive their random states."""
    rank_states.WAIT_S, before = 0.2, rank_states.WAIT_S
    lines: list[str] = []
    runner, _ = run("alone", last=5, default_hooks={"checkpoint": None})
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    runner.logger.addHandler(handler)
    dist.barrier()
    if rank == 0:
        runner.save_checkpoint("alone", "iter_5.pth", by_epoch=False)
        assert "Rank(s) 1 did not take part in saving alone/iter_5.pth" in lines[-1], lines
    dist.barrier()
    resumed, rest = run("alone_on", load_from="alone/iter_5.pth", resume=True)
    assert resumed.iter == 12
    assert len(rest) == 7
    rank_states.WAIT_S = before
    states = dist.all_gather_object(torch.get_rng_state())
    assert not torch.equal(states[0], states[1])


SHARDED = {"type": "fully_shard", "layers": ["Linear"]}


def whole_weights(runner: Runner) -> dict[str, torch.Tensor]:
    state = unwrapped(runner.model).state_dict()
    return {name: sharding.whole(value).clone() for name, value in state.items()}


def check_a_sharded_run_resumes_bit_for_bit(rank: int) -> None:
    """Cut in the middle of an accumulation group, with clipping; and equal to a run under DDP."""
    wrapper = {
        "optimizer": {"type": "AdamW", "lr": 0.1},
        "accumulative_counts": 4,
        "clip_grad": {"max_norm": 0.1},
    }
    options = {"optim_wrapper": wrapper, "train_cfg": BY_ITER}
    whole, seen = run("sharded_whole", model_wrapper_cfg=SHARDED, **options)
    run("sharded_cut", last=7, model_wrapper_cfg=SHARDED, **options)
    resumed, rest = run("sharded_cut", resume=True, model_wrapper_cfg=SHARDED, **options)
    assert_same(rest, seen[6:])
    assert_same(whole_weights(resumed), whole_weights(whole))
    under_ddp, _ = run("sharded_not", **options)
    torch.testing.assert_close(whole_weights(whole), whole_weights(under_ddp))


def check_sharded_checkpoints_are_those_of_any_run(rank: int) -> None:
    """One saved under DDP resumes sharded, and the other way round."""
    options = {"optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.1}}, "train_cfg": BY_ITER}
    run("any_sharded", last=7, model_wrapper_cfg=SHARDED, **options)
    run("any_ddp", last=7, **options)
    one, other = (load(f"any_{kind}/iter_6.pth")["optimizer"] for kind in ("sharded", "ddp"))
    assert_same(
        one["state"][0]["exp_avg"].shape, other["state"][0]["exp_avg"].shape, "states are whole"
    )
    ended = []
    for kind, changes in (("sharded", {}), ("ddp", {"model_wrapper_cfg": SHARDED})):
        start = {"load_from": f"any_{kind}/iter_6.pth", "resume": True}
        resumed, rest = run(f"any_{kind}_on", **start, **changes, **options)
        assert len(rest) == 6
        ended.append(whole_weights(resumed))
    torch.testing.assert_close(*ended)


def check_what_cannot_be_sharded_says_so(rank: int) -> None:
    with pytest.raises(ValueError, match=r"EMAHook keeps a copy .* \(fully_shard\) cannot be"):
        run("sharded_ema", model_wrapper_cfg=SHARDED, custom_hooks=[{"type": "EMAHook"}])
    with pytest.raises(ValueError, match=r"'MMFullyShardedDataParallel' .*type='fully_shard'"):
        run("sharded_old", model_wrapper_cfg={"type": "MMFullyShardedDataParallel"})


def check_sharded_parameters_are_saved_whole(rank: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(toy.LineModel(), mesh=init_device_mesh("cpu", (2,)))
    full = {name: value.full_tensor() for name, value in model.state_dict().items()}
    runner, _ = run("sharded", train_cfg={"by_epoch": False, "max_iters": 0})
    runner.model.module = model
    runner.save_checkpoint("sharded", "whole.pth", save_optimizer=False)
    dist.barrier()
    assert_same(dict(load("sharded/whole.pth")["state_dict"]), full)


CHECKS = {name: value for name, value in globals().items() if name.startswith("check_")}
del CHECKS["check_equals_uninterrupted"]


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
