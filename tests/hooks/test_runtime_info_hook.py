from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.hooks import RuntimeInfoHook
from fasttrain.logging import MessageHub
from fasttrain.utils import get_git_hash
from fasttrain.version import __version__
from slow_device import SlowReader


def make_runner(**changes: Any) -> Any:
    dataset = SimpleNamespace(metainfo={"classes": ("a",)})
    parts = {
        "message_hub": MessageHub("hub"),
        "cfg": SimpleNamespace(pretty_text="a = 1\n"),
        "seed": 3,
        "experiment_name": "exp",
        "epoch": 2,
        "iter": 9,
        "max_epochs": 10,
        "max_iters": 100,
        "train_dataloader": SimpleNamespace(dataset=dataset),
        "optim_wrapper": SimpleNamespace(get_lr=lambda: {"lr": [0.1, 0.2]}),
    }
    return SimpleNamespace(**{**parts, **changes})


def notes(runner: Any) -> dict[str, Any]:
    return dict(runner.message_hub.runtime_info)


def scalars(runner: Any) -> dict[str, list[float]]:
    return {name: b.data[0].tolist() for name, b in runner.message_hub.log_scalars.items()}


def test_before_run() -> None:
    runner = make_runner()
    RuntimeInfoHook().before_run(runner)
    found = notes(runner)
    assert found.pop("fasttrain_version").startswith(__version__)
    assert found.pop("mmengine_version") == "0.10.7" + get_git_hash()
    assert found == {"cfg": "a = 1\n", "seed": 3, "experiment_name": "exp"}


def test_training() -> None:
    runner, hook = make_runner(), RuntimeInfoHook()
    hook.before_train(runner)
    progress = {"epoch": 2, "iter": 9, "max_epochs": 10, "max_iters": 100}
    assert notes(runner) == {
        "loop_stage": "train", **progress, "dataset_meta": {"classes": ("a",)}
    }  # fmt: skip
    runner.epoch = 3
    hook.before_train_epoch(runner)
    hook.after_train(runner)
    assert "loop_stage" not in notes(runner) and notes(runner)["epoch"] == 3


def test_a_dataset_without_metainfo() -> None:
    runner = make_runner(train_dataloader=SimpleNamespace(dataset=[1]))
    RuntimeInfoHook().before_train(runner)
    assert "dataset_meta" not in notes(runner)


def test_rates() -> None:
    runner, hook = make_runner(), RuntimeInfoHook()
    for runner.iter in (4, 5):
        hook.before_train_iter(runner, batch_idx=1)
    assert notes(runner) == {"iter": 5} and scalars(runner) == {"train/lr": [0.1, 0.1]}
    runner.optim_wrapper.get_lr = lambda: {"gen.lr": [0.5], "dis.lr": [torch.tensor(0.25)]}
    hook.before_train_iter(runner, batch_idx=1)
    assert scalars(runner)["train/gen.lr"] == [0.5]
    assert scalars(runner)["train/dis.lr"] == [0.25]
    runner.optim_wrapper.get_lr = lambda: [0.1]
    with pytest.raises(AssertionError, match=r"`runner.optim_wrapper.get_lr\(\)` should return a"):
        hook.before_train_iter(runner, batch_idx=1)


def test_outputs() -> None:
    runner, hook = make_runner(), RuntimeInfoHook()
    hook.after_train_iter(runner, 0, outputs=None)
    assert scalars(runner) == {}
    loss = torch.tensor(1.5, requires_grad=True)
    for _ in range(2):
        hook.after_train_iter(runner, 0, outputs={"loss": loss, "acc": np.float32(0.5), "n": 3})
    assert scalars(runner) == {"train/loss": [1.5] * 2, "train/acc": [0.5] * 2, "train/n": [3] * 2}
    with pytest.raises(AssertionError, match=r"exactly one element"):
        hook.after_train_iter(runner, 0, outputs={"loss": torch.zeros(2)})


@pytest.mark.parametrize(("before", "after"), [("train", "train"), (None, None), ("test", None)])
def test_validation_returns_to_training(before: str | None, after: str | None) -> None:
    runner, hook = make_runner(), RuntimeInfoHook()
    if before is not None:
        runner.message_hub.update_info("loop_stage", before)
    hook.before_val(runner)
    assert notes(runner)["loop_stage"] == "val"
    hook.after_val(runner)
    assert notes(runner).get("loop_stage") == after


def test_test() -> None:
    runner, hook = make_runner(), RuntimeInfoHook()
    hook.before_test(runner)
    assert notes(runner) == {"loop_stage": "test"}
    hook.after_test(runner)
    assert notes(runner) == {}


@pytest.mark.parametrize("mode", ["val", "test"])
def test_metrics(mode: str) -> None:
    runner, hook = make_runner(), RuntimeInfoHook()
    numbers = {
        "int": 1, "float": 0.5, "bool": True, "numpy": np.float32(2), "array": np.array([3.0]),
        "array0": np.array(4), "tensor": torch.tensor(5.0), "tensor1": torch.tensor([6]),
    }  # fmt: skip
    others = {"text": "x", "list": [1], "none": None, "arrays": np.arange(2), "complex": 1j}
    after = getattr(hook, f"after_{mode}_epoch")
    after(runner)
    after(runner, metrics={**numbers, **others})
    assert scalars(runner) == {
        f"{mode}/{name}": [np.asarray(v).item()] for name, v in numbers.items()
    }
    assert notes(runner) == {f"{mode}/{name}": v for name, v in others.items()}


def test_nothing_waits_for_the_device() -> None:
    reader = SlowReader()
    runner, hook = make_runner(message_hub=MessageHub("hub", reader=reader)), RuntimeInfoHook()
    for step in range(5):
        runner.iter = step
        hook.before_train_iter(runner, batch_idx=step)
        nan = float("nan") if step == 3 else 1.0
        hook.after_train_iter(runner, step, outputs={"loss": torch.tensor(nan)})
    assert not reader.transfers
    hook.before_val(runner)
    assert len(reader.transfers) == 1, "validation starts with all of the training's numbers"
    assert len(scalars(runner)["train/lr"]) == 5
    assert runner.message_hub.store.nonfinite_steps == {"train/loss": 3}
