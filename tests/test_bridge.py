"""Hooks of one face on the other: what they see, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fasttrain.bridge import EngineHook, RunnerHook
from fasttrain.engine import HookBase, IterationTimer, TrainerBase
from fasttrain.hooks import CheckpointHook, Hook
from fasttrain.model import BaseModel
from fasttrain.runner import Runner


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def forward(self, inputs: Tensor, mode: str = "tensor") -> Any:
        return {"loss": self.net(inputs).mean() ** 2}


def run(folder: Path, hook: Any, max_iters: int = 4) -> Runner:
    runner = Runner(
        model=Toy(),
        work_dir=str(folder),
        train_dataloader={
            "dataset": [{"inputs": torch.ones(2)} for _ in range(8)],
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "batch_size": 2,
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": False, "max_iters": max_iters},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        custom_hooks=[hook],
        default_hooks={"checkpoint": None},
    )
    runner.train()
    return runner


def test_an_engine_hook_sees_the_runner_and_its_scalars_reach_the_hub(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Engine(HookBase):
        def before_train(self) -> None:
            seen.append(("start", self.trainer.iter, self.trainer.max_iter))

        def after_step(self) -> None:
            self.trainer.storage.put_scalar("mine", self.trainer.iter * 10)
            seen.append(self.trainer.iter)

        def after_train(self) -> None:
            seen.append(("end", self.trainer.iter))

    runner = run(tmp_path, EngineHook(Engine()))
    assert seen == [("start", 0, 4), 0, 1, 2, 3, ("end", 4)]
    assert list(runner.message_hub.get_scalar("train/mine").data[0]) == [0, 10, 20, 30]


def test_the_engine_timer_runs_on_a_runner(tmp_path: Path) -> None:
    runner = run(tmp_path, EngineHook(IterationTimer(warmup_iter=1)), max_iters=5)
    times, _ = runner.message_hub.get_scalar("train/time").data
    assert len(times) >= 4 and (times > 0).all()


def test_a_scope_and_a_device_scalar_reach_the_hub_unread(tmp_path: Path) -> None:
    class Engine(HookBase):
        def after_step(self) -> None:
            with self.trainer.storage.name_scope("deep"):
                self.trainer.storage.put_scalar("x", torch.tensor(1.5))

    runner = run(tmp_path, EngineHook(Engine()))
    assert list(runner.message_hub.get_scalar("train/deep/x").data[0]) == [1.5] * 4


def test_states_of_engine_hooks_are_in_the_runners_checkpoints(tmp_path: Path) -> None:
    class Counter(HookBase):
        def __init__(self) -> None:
            self.count = 0

        def after_step(self) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    runner = run(tmp_path, EngineHook(Counter()))
    runner.save_checkpoint(str(tmp_path), "saved.pth")
    other = run(tmp_path / "other", EngineHook(Counter()), max_iters=1)
    other.load_checkpoint(str(tmp_path / "saved.pth"))
    hook = next(hook for hook in other.hooks if isinstance(hook, EngineHook))
    assert hook.hook.count == 4  # type: ignore[attr-defined]


def test_what_a_runner_cannot_offer_is_said(tmp_path: Path) -> None:
    class Asks(HookBase):
        def after_step(self) -> None:
            self.trainer.checkpointer.save("x")  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match=r"asked for 'checkpointer', which a Runner cannot"):
        run(tmp_path, EngineHook(Asks()))


class Counting(TrainerBase):
    iters_per_epoch = 3

    def run_step(self) -> None:
        pass


def test_a_runner_hook_sees_the_trainer_by_epochs() -> None:
    log: list[str] = []

    class Recorder(Hook):
        def before_train(self, runner: Any) -> None:
            log.append(f"train {runner.max_epochs}")

        def before_train_epoch(self, runner: Any) -> None:
            log.append(f"epoch {runner.epoch}")

        def _after_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
            log.append(f"{runner.iter}:{batch_idx}")

        def after_train(self, runner: Any) -> None:
            log.append("done")

    trainer = Counting()
    trainer.register_hooks([RunnerHook(Recorder())])
    trainer.train(0, 5)
    assert log == [
        "train 2", "epoch 0", "0:0", "1:1", "2:2", "epoch 1", "3:0", "4:1", "done",
    ]  # fmt: skip


def test_stages_that_a_hook_can_do_without_are_named() -> None:
    class AfterVal(Hook):
        def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
            raise AssertionError("there is no validation")

    with pytest.raises(TypeError, match="AfterVal acts at after_val_epoch"):
        RunnerHook(AfterVal())
    trainer = Counting()
    trainer.register_hooks([RunnerHook(AfterVal(), ignore=["after_val_epoch"])])
    trainer.train(0, 2)
    assert trainer.iter == 2


def test_what_cannot_be_bridged_is_refused() -> None:
    with pytest.raises(TypeError, match=r"CheckpointHook acts at after_val_epoch, which an engine"):
        RunnerHook(CheckpointHook(interval=1))
    with pytest.raises(TypeError, match="expected a Runner's Hook, got IterationTimer"):
        RunnerHook(IterationTimer())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an engine HookBase, got Hook"):
        EngineHook(Hook())  # type: ignore[arg-type]

    class AfterBackward(HookBase):
        def after_backward(self) -> None:
            pass

    with pytest.raises(TypeError, match="AfterBackward acts at after_backward, which a Runner"):
        EngineHook(AfterBackward())

    class Asks(Hook):
        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            runner.message_hub.update_info("x", 1)

    trainer = Counting()
    trainer.register_hooks([RunnerHook(Asks())])
    with pytest.raises(AttributeError, match=r"asked for 'message_hub', which an engine trainer"):
        trainer.train(0, 1)
