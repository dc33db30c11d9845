"""A resumed run equals the uninterrupted one bit for bit."""

import signal
from typing import Any

import pytest
import torch

from early_ends import CtrlCAt, Stop, StopAt
from fasttrain.hooks import Hook
from fasttrain.runner import Runner
from support import assert_same

BY_EPOCH = {"by_epoch": True, "max_epochs": 3, "val_interval": 1}
BY_ITER = {"by_epoch": False, "max_iters": 12, "val_interval": 3}


class Seen(Hook):
    """Notes the batches that were trained on."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, torch.Tensor]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.batches.append((runner.iter, batch_idx, data_batch["inputs"].clone()))


def data(workers: int, sampler: str, noise: bool = True, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": {"type": "LineData", "noise": noise},
        "sampler": {"type": sampler, "shuffle": True},
        "collate_fn": {"type": "default_collate"},
        "batch_size": 3,
        "num_workers": workers,
        **changes,
    }


def every(iterations: int) -> dict[str, Any]:
    return {"checkpoint": {"type": "CheckpointHook", "interval": iterations, "by_epoch": False}}


def weights(runner: Runner) -> dict[str, Any]:
    return {
        "model": {k: v.clone() for k, v in runner.model.state_dict().items()},
        "momentum": [
            state["momentum_buffer"].clone()
            for state in runner.optim_wrapper.optimizer.state.values()
        ],
    }


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("train_cfg", "sampler"),
    [(BY_EPOCH, "DefaultSampler"), (BY_ITER, "DefaultSampler"), (BY_ITER, "InfiniteSampler")],
    ids=["epoch", "iter", "iter-infinite"],
)
@pytest.mark.parametrize("cut", [4, 6])
def test_killed_and_resumed_equals_uninterrupted(
    make_runner: Any, tmp_path: Any, workers: int, train_cfg: dict, sampler: str, cut: int
) -> None:
    options = {
        "train_cfg": train_cfg,
        "train_dataloader": data(workers, sampler),
        "default_hooks": every(2),
        "param_scheduler": {"type": "LinearLR", "by_epoch": False, "end": 12},
    }
    seen, rest = Seen(), Seen()
    whole = make_runner(work_dir=str(tmp_path / "whole"), **options)
    whole.register_hook(seen)
    whole.train()

    other = {**options, "work_dir": str(tmp_path / "cut")}
    with pytest.raises(Stop):
        make_runner(custom_hooks=[StopAt(cut + 1)], **other).train()
    resumed = make_runner(resume=True, **{**other, "randomness": {"seed": None}})
    resumed.register_hook(rest)
    resumed.train()
    assert resumed.seed == 7
    assert len(seen.batches) == 12
    assert_same(rest.batches, seen.batches[cut:])
    assert_same(weights(resumed), weights(whole))


def test_averaged_weights_resume_exactly(make_runner: Any, tmp_path: Any) -> None:
    options = {"train_cfg": BY_EPOCH, "default_hooks": every(2)}

    def run(folder: str, *hooks: Any, **changes: Any) -> dict[str, Any]:
        ema = {"type": "EMAHook", "momentum": 0.2}
        runner = make_runner(
            work_dir=str(tmp_path / folder), custom_hooks=[ema, *hooks], **options, **changes
        )
        runner.train()
        (hook,) = [hook for hook in runner.hooks if type(hook).__name__ == "EMAHook"]
        return {**weights(runner), "ema": hook.ema_model.state_dict()}

    whole = run("whole")
    with pytest.raises(Stop):
        run("cut", StopAt(7))
    assert_same(run("cut", resume=True), whole)


def test_epoch_checkpoints_resume_exactly(make_runner: Any, tmp_path: Any) -> None:
    options = {"train_dataloader": data(0, "DefaultSampler"), "train_cfg": BY_EPOCH}
    whole = make_runner(work_dir=str(tmp_path / "whole"), **options)
    whole.train()
    other = {**options, "work_dir": str(tmp_path / "cut")}
    with pytest.raises(Stop):
        make_runner(custom_hooks=[StopAt(10)], **other).train()
    resumed = make_runner(resume=True, **other)
    resumed.train()
    assert (resumed.epoch, resumed.iter) == (3, 12)
    assert_same(weights(resumed), weights(whole))


@pytest.mark.parametrize("cut", [4, 5, 6])
def test_accumulation_cut_midway(make_runner: Any, tmp_path: Any, cut: int) -> None:
    options = {
        "train_cfg": {"by_epoch": False, "max_iters": 11},
        "default_hooks": every(1),
        "optim_wrapper": {
            "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
            "accumulative_counts": 3,
        },
    }
    whole = make_runner(work_dir=str(tmp_path / "whole"), **options)
    whole.train()
    other = {**options, "work_dir": str(tmp_path / "cut")}
    with pytest.raises(Stop):
        make_runner(custom_hooks=[StopAt(cut + 1)], **other).train()
    resumed = make_runner(resume=True, **other)
    resumed.train()
    assert_same(weights(resumed), weights(whole))


def test_validation_does_not_change_the_training(make_runner: Any, tmp_path: Any) -> None:
    often = make_runner(work_dir=str(tmp_path / "often"), train_cfg={**BY_ITER, "val_interval": 1})
    often.train()
    no_validation = {"val_cfg": None, "val_dataloader": None, "val_evaluator": None}
    never = make_runner(work_dir=str(tmp_path / "never"), train_cfg=BY_ITER, **no_validation)
    never.train()
    assert_same(weights(often), weights(never))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [3, 8])
def test_ctrl_c_saves_the_last_iteration(
    make_runner: Any, tmp_path: Any, workers: int, at: int
) -> None:
    options = {"train_dataloader": data(workers, "DefaultSampler"), "train_cfg": BY_EPOCH}
    whole = make_runner(work_dir=str(tmp_path / "whole"), **options)
    whole.train()
    other = {**options, "work_dir": str(tmp_path / "cut")}
    stopped = make_runner(custom_hooks=[CtrlCAt(at)], **other, log_level="WARNING")
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert stopped.iter == at
    log = (tmp_path / "cut" / stopped.timestamp / f"{stopped.timestamp}.log").read_text()
    assert f"Interrupted after iteration {at}" in log
    assert "Resume with `resume=True`" in log
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = make_runner(resume=True, **other)
    resumed.train()
    assert_same(weights(resumed), weights(whole))


def test_skipping_loads_nothing(make_runner: Any) -> None:
    options = {"train_dataloader": data(0, "DefaultSampler", noise=False), "train_cfg": BY_ITER}
    with pytest.raises(Stop):
        make_runner(custom_hooks=[StopAt(7)], default_hooks=every(6), **options).train()
    resumed = make_runner(resume=True, **options)
    resumed.train()
    assert len(resumed.train_dataloader.dataset.loaded) == 6 * 3


@pytest.mark.parametrize("cut", [2, 4, 6])
@pytest.mark.parametrize("train_cfg", [BY_EPOCH, BY_ITER], ids=["epoch", "iter"])
def test_persistent_workers_resume_exactly(
    make_runner: Any, tmp_path: Any, train_cfg: dict, cut: int
) -> None:
    loader = data(2, "DefaultSampler", persistent_workers=True)
    options = {"train_cfg": train_cfg, "train_dataloader": loader, "default_hooks": every(2)}
    seen, rest = Seen(), Seen()
    whole = make_runner(work_dir=str(tmp_path / "whole"), **options)
    whole.register_hook(seen)
    whole.train()
    assert len(torch.cat([batch for _, _, batch in seen.batches]).unique()) == 12 * 3 * 2
    other = {**options, "work_dir": str(tmp_path / "cut")}
    with pytest.raises(Stop):
        make_runner(custom_hooks=[StopAt(cut + 1)], **other).train()
    resumed = make_runner(resume=True, **other)
    resumed.register_hook(rest)
    resumed.train()
    assert_same(rest.batches, seen.batches[cut:])
    assert_same(weights(resumed), weights(whole))


def test_another_batch_size_in_mid_epoch(make_runner: Any, tmp_path: Any) -> None:
    def options(batch_size: int) -> dict[str, Any]:
        loader = data(0, "DefaultSampler", noise=False, batch_size=batch_size)
        return {"train_cfg": BY_EPOCH, "train_dataloader": loader, "default_hooks": every(2)}

    seen, rest = Seen(), Seen()
    whole = make_runner(work_dir=str(tmp_path / "whole"), **options(3))
    whole.register_hook(seen)
    whole.train()
    with pytest.raises(Stop):
        make_runner(custom_hooks=[StopAt(3)], **options(3)).train()
    resumed = make_runner(resume=True, log_level="INFO", **options(2))
    resumed.register_hook(rest)
    resumed.train()
    assert [index for _, index, _ in rest.batches] == [*range(3, 6), *range(6), *range(6)]
    assert_same(
        torch.cat([batch for _, _, batch in rest.batches]),
        torch.cat([batch for _, _, batch in seen.batches])[6:],
    )
    log = (tmp_path / "work" / resumed.timestamp / f"{resumed.timestamp}.log").read_text()
    assert "with batch size 2 instead of 3: it goes on behind the 6 samples" in log
