"""Trainers: the order of calls, what survives an error, updates equal to plain PyTorch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.core.fused import SGD
from fasttrain.core.precision import Precision
from fasttrain.core.update import GradClip
from fasttrain.engine import (
    AMPTrainer,
    CallbackHook,
    HookBase,
    IterationTimer,
    SimpleTrainer,
    TrainerBase,
)
from support import assert_same


class Recorder(HookBase):
    def __init__(self, log: list[str], name: str = "") -> None:
        self.log, self.name = log, name

    def before_train(self) -> None:
        self.log.append(f"{self.name}before_train")

    def before_step(self) -> None:
        self.log.append(f"{self.name}before_step {self.trainer.storage.iter}")

    def after_step(self) -> None:
        self.log.append(f"{self.name}after_step {self.trainer.iter}")

    def after_train(self) -> None:
        self.log.append(f"{self.name}after_train {self.trainer.iter}")


class Counting(TrainerBase):
    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.fail_at = fail_at

    def run_step(self) -> None:
        if self.iter == self.fail_at:
            raise RuntimeError("broken step")
        self.steps.append(self.iter)


class TwoLosses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.net(batch)
        return {"loss_a": (out**2).mean(), "loss_b": (out - 1).abs().mean(), "acc": out.mean()}


def batches(n: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 4, generator=generator) for _ in range(n)]


def test_hooks_run_in_order_around_each_step() -> None:
    log: list[str] = []
    trainer = Counting()
    trainer.register_hooks([Recorder(log, "a "), None, Recorder(log, "b ")])
    trainer.train(3, 5)
    assert trainer.steps == [3, 4]
    assert log[:6] == [
        "a before_train", "b before_train", "a before_step 3", "b before_step 3",
        "a after_step 3", "b after_step 3",
    ]  # fmt: skip
    assert log[-2:] == ["a after_train 5", "b after_train 5"]


def test_start_equal_to_max_trains_nothing_and_ends_at_max() -> None:
    trainer = Counting()
    trainer.train(5, 5)
    assert trainer.iter == 5
    assert trainer.steps == []


def test_start_behind_max_is_refused() -> None:
    with pytest.raises(ValueError, match=r"start_iter must be <= max_iter, got 7 > 5.*raise max"):
        Counting().train(7, 5)


def test_after_train_runs_after_an_error_with_the_iteration_that_failed() -> None:
    log: list[str] = []
    trainer = Counting(fail_at=2)
    trainer.register_hooks([Recorder(log)])
    with pytest.raises(RuntimeError, match="broken step"):
        trainer.train(0, 5)
    assert log[-1] == "after_train 2"


def test_a_hook_that_fails_at_the_end_does_not_keep_others_from_cleaning_up() -> None:
    log: list[str] = []

    class Broken(HookBase):
        def after_train(self) -> None:
            raise OSError("disk full")

    trainer = Counting()
    trainer.register_hooks([Broken(), Recorder(log)])
    with pytest.raises(OSError, match="disk full"):
        trainer.train(0, 1)
    assert log[-1] == "after_train 1"


def test_an_error_at_the_end_does_not_hide_the_first_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(HookBase):
        def after_train(self) -> None:
            raise OSError("disk full")

    trainer = Counting(fail_at=1)
    trainer.register_hooks([Broken()])
    with pytest.raises(RuntimeError, match="broken step"):
        trainer.train(0, 3)
    assert "after_train failed too, after RuntimeError('broken step'): OSError" in caplog.text


def test_after_train_runs_after_an_interrupt() -> None:
    log: list[str] = []

    class Interrupting(HookBase):
        def after_step(self) -> None:
            raise KeyboardInterrupt

    trainer = Counting()
    trainer.register_hooks([Interrupting(), Recorder(log)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train(0, 3)
    assert log[-1] == "after_train 0"


def test_hooks_see_the_gradients_before_the_step() -> None:
    model = TwoLosses()
    seen: list[bool] = []

    class Sees(HookBase):
        def after_backward(self) -> None:
            seen.append(all(p.grad is not None for p in model.parameters()))

    trainer = SimpleTrainer(model, batches(), torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks([Sees()])
    trainer.train(0, 3)
    assert seen == [True] * 3


def test_the_last_group_of_an_accumulation_is_stepped() -> None:
    model = TwoLosses()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, batches(), optimizer, accumulation=4)
    steps: list[int] = []
    optimizer.register_step_post_hook(lambda *_: steps.append(trainer.iter))
    trainer.train(0, 6)
    assert steps == [3, 5]
    trainer.train(6, 9)  # a resumed run counts on
    assert steps == [3, 5, 7, 8]


@pytest.mark.parametrize("in_fp32", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, SGD])
def test_a_run_cut_in_mid_group_goes_on_bit_for_bit(optimizer: Any, in_fp32: bool) -> None:
    def make() -> SimpleTrainer:
        model = TwoLosses().to(torch.bfloat16)
        return SimpleTrainer(
            model,
            [batch.to(torch.bfloat16) for batch in batches()],
            optimizer(model.parameters(), lr=0.1, momentum=0.9),
            accumulation=len(batches()),
            accumulate_in_fp32=in_fp32,
        )

    size = len(batches())
    whole, first, second = make(), make(), make()
    whole.train(0, 3 * size)
    first.register_hooks([CallbackHook(after_step=stop_at(size + 2))])
    with pytest.raises(KeyboardInterrupt):
        first.train(0, 3 * size)
    saved = copy.deepcopy((first.model.state_dict(), first.state_dict()))
    assert saved[1]["accumulation"]["sums" if in_fp32 else "gradients"]

    second.model.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    for _ in range(2):  # the loader goes on where it was
        second.next_batch()
    second.train(size + 2, 3 * size)
    assert_same(second.model.state_dict(), whole.model.state_dict())
    assert "accumulation" not in whole.state_dict()


def stop_at(num_done: int) -> Callable[[TrainerBase], None]:
    def stop(trainer: TrainerBase) -> None:
        if trainer.iter + 1 == num_done:
            raise KeyboardInterrupt

    return stop


def test_under_ddp_only_the_last_backward_of_a_group_reduces(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", world_size=1, rank=0
    )
    try:
        model = nn.parallel.DistributedDataParallel(TwoLosses())
        seen: list[bool] = []
        model.register_forward_pre_hook(
            lambda *_: seen.append(bool(model.require_backward_grad_sync))
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        SimpleTrainer(model, batches(), optimizer, accumulation=3).train(0, 7)
    finally:
        torch.distributed.destroy_process_group()
    assert seen == [False, False, True, False, False, True, True]


def test_the_loader_can_be_replaced() -> None:
    model = TwoLosses()
    trainer = SimpleTrainer(model, batches(1), torch.optim.SGD(model.parameters(), lr=0.1))
    first = trainer.next_batch()
    trainer.reset_data_loader(lambda: [torch.zeros(1, 4)])
    assert first.shape == (8, 4) and trainer.next_batch().shape == (1, 4)


def test_what_is_no_hook_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be HookBase objects or None, got function"):
        Counting().register_hooks([lambda trainer: None])  # type: ignore[list-item]


def test_the_list_of_hooks_may_be_rearranged() -> None:
    log: list[str] = []
    trainer = Counting()
    trainer.register_hooks([Recorder(log, "a "), Recorder(log, "b ")])
    trainer._hooks = trainer._hooks[::-1]
    trainer.register_hooks([Recorder(log, "c ")])
    trainer.train(0, 1)
    assert log[:3] == ["b before_train", "a before_train", "c before_train"]


class Keeps(HookBase):
    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def test_two_hooks_of_one_class_keep_their_own_states() -> None:
    trainer = Counting()
    trainer.register_hooks([Keeps(1), Keeps(2), Recorder([])])
    state = trainer.state_dict()
    assert state == {"iteration": 0, "hooks": {"Keeps": {"value": 1}, "Keeps#1": {"value": 2}}}
    first, second = Keeps(0), Keeps(0)
    other = Counting()
    other.register_hooks([first, second])
    other.load_state_dict(state)
    assert (first.value, second.value) == (1, 2)


def test_a_state_of_an_unknown_hook_is_named(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Counting()
    trainer.load_state_dict({"iteration": 4, "hooks": {"Gone": {"x": 1}}})
    assert trainer.iter == 4
    assert "Cannot find the hook 'Gone'" in caplog.text


def test_callbacks_get_the_trainer_and_are_dropped_afterwards() -> None:
    seen: list[int] = []
    hook = CallbackHook(after_step=lambda trainer: seen.append(trainer.iter))
    trainer = Counting()
    trainer.register_hooks([hook])
    trainer.train(0, 2)
    assert seen == [0, 1]
    assert hook._after_step is None


def plain_training(steps: int, *, clip: float | None = None, accumulation: int = 1) -> nn.Module:
    model = TwoLosses()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = batches()
    for step in range(steps):
        losses = model(data[step % len(data)])
        ((losses["loss_a"] + losses["loss_b"]) / accumulation).backward()
        if (step + 1) % accumulation:
            continue
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("zero_first", [False, True])
def test_simple_trainer_equals_a_hand_written_loop(
    clip: float | None, accumulation: int, zero_first: bool
) -> None:
    model = TwoLosses()
    trainer = SimpleTrainer(
        model,
        batches(),
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        zero_grad_before_forward=zero_first,
        clip=None if clip is None else GradClip(max_norm=clip),
        accumulation=accumulation,
    )
    trainer.train(0, 10)
    expected = plain_training(10, clip=clip, accumulation=accumulation)
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    history = trainer.storage.history("total_loss").values()
    assert [iteration for _, iteration in history] == list(range(10))
    latest = trainer.storage.latest()
    assert latest["total_loss"][0] == pytest.approx(
        latest["loss_a"][0] + latest["loss_b"][0]
    )  # without acc


def test_a_nan_loss_raises_and_names_the_losses() -> None:
    model = TwoLosses()
    trainer = SimpleTrainer(
        model,
        [torch.full((2, 4), torch.nan)],
        torch.optim.SGD(model.parameters(), lr=0.1),
    )
    with pytest.raises(FloatingPointError, match=r"infinite or NaN at iteration=0"):
        trainer.train(0, 2)


def test_an_empty_loader_is_a_clear_error() -> None:
    model = TwoLosses()
    trainer = SimpleTrainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="the data loader is empty: expected at least one batch"):
        trainer.train(0, 1)


def test_a_loss_that_is_no_scalar_is_named() -> None:
    class Unreduced(TwoLosses):
        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss_x": self.net(batch)}

    model = Unreduced()
    trainer = SimpleTrainer(model, batches(), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TypeError, match=r"loss 'loss_x' must be a scalar tensor, got \(8, 1\)"):
        trainer.train(0, 1)


def test_a_scaler_of_the_users_is_used_and_their_precision_kept() -> None:
    model = TwoLosses()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    precision = Precision("fp16")
    own = precision.scaler
    trainer = AMPTrainer(
        model, batches(), optimizer, grad_scaler=scaler, precision=precision, log_grad_scaler=True
    )
    trainer.train(0, 3)
    assert trainer.grad_scaler is scaler and precision.scaler is own
    assert trainer.storage.history("[metric]grad_scaler").latest() == 4.0
    with pytest.raises(ValueError, match=r"precision must be one of .*got torch.float64"):
        AMPTrainer(model, batches(), optimizer, precision=torch.float64)


def test_a_model_left_in_eval_mode_is_noticed() -> None:
    model = TwoLosses()
    trainer = SimpleTrainer(model, batches(), torch.optim.SGD(model.parameters(), lr=0.1))
    model.eval()
    with pytest.raises(AssertionError, match="changed to eval mode"):
        trainer.train(0, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_amp_trainer_autocasts_trains_and_resumes(dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    class Model(TwoLosses):
        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(self.net(batch).dtype)
            return super().forward(batch)

    def make() -> AMPTrainer:
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        return AMPTrainer(model, batches(), optimizer, precision=dtype, log_grad_scaler=True)

    trainer = make()
    trainer.train(0, 8)
    assert set(seen) == {dtype}
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert losses[-1] < losses[0]
    state = trainer.state_dict()
    assert ("grad_scaler" in state) == (dtype is torch.float16)
    other = make()
    other.load_state_dict(state)
    assert_same(other.state_dict(), state)
    if dtype is torch.float16:
        assert trainer.storage.latest()["[metric]grad_scaler"][0] == trainer.grad_scaler.get_scale()


def test_iteration_timer_counts_only_the_step(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    trainer = Counting()
    slow = CallbackHook(after_step=lambda trainer: time.sleep(0.1))
    trainer.register_hooks([IterationTimer(warmup_iter=2), slow])
    trainer.train(0, 5)
    assert trainer.storage.history("time").median(5) < 0.05
    assert [i for _, i in trainer.storage.history("time").values()] == [1, 2, 3, 4]
    assert "Overall training speed: 4 iterations" in caplog.text
