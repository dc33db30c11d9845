"""The runner trains to the same weights as a loop written by hand in plain PyTorch."""

from typing import Any

import pytest
import torch

from fasttrain.registry import MODELS, OPTIMIZERS
from fasttrain.runner import Runner, set_random_seed
from support import assert_same

EPOCHS = 3


def train_by_hand(
    cfg: dict[str, Any], optimizer_cls: type, clip: float | None, accumulation: int, **options: Any
) -> dict[str, torch.Tensor]:
    """What `Runner` does, in as few lines as plain PyTorch needs."""
    set_random_seed(7)
    model = MODELS.build(cfg["model"])
    optimizer = optimizer_cls(model.parameters(), **options)
    loader = Runner.build_dataloader(cfg["train_dataloader"], seed=7)
    count = 0
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        model.train()
        for batch in loader:
            loss = model(**batch, mode="loss")["loss"] / accumulation
            loss.backward()
            count += 1
            if count % accumulation == 0:
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return model.state_dict()


CASES = [
    ("SGD", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("AdamW", torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "plain", "options"), CASES, ids=["sgd", "adamw"])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("fused", [False, None])
def test_same_weights(
    make_cfg: Any, name: str, plain: type, options: dict, clip: Any, accumulation: int, fused: Any
) -> None:
    optimizer = {"type": name, **options}
    if fused is not None:
        optimizer["fused"] = fused
    wrapper: dict[str, Any] = {"optimizer": optimizer, "accumulative_counts": accumulation}
    if clip is not None:
        wrapper["clip_grad"] = {"max_norm": clip}
    cfg = make_cfg(
        optim_wrapper=wrapper,
        param_scheduler=None,
        train_cfg={"by_epoch": True, "max_epochs": EPOCHS},
    )
    runner = Runner.from_cfg(cfg)
    assert isinstance(runner.build_optim_wrapper(wrapper).optimizer, OPTIMIZERS.get(name))
    trained = runner.train().state_dict()
    expected = train_by_hand(cfg, plain, clip, accumulation, **options)
    if fused is False:
        assert_same(dict(trained), dict(expected))
    else:
        for key, value in expected.items():
            torch.testing.assert_close(trained[key], value, rtol=1e-6, atol=1e-7)


def test_data_time_and_losses_do_not_change_the_training(make_cfg: Any, tmp_path: Any) -> None:
    """All hooks together leave the weights as no hooks at all do."""
    options = {"param_scheduler": None, "val_cfg": None, "val_dataloader": None}
    options["val_evaluator"] = None
    bare = make_cfg(
        work_dir=str(tmp_path / "bare"),
        default_hooks=dict.fromkeys(["runtime_info", "timer", "logger", "checkpoint"]),
        **options,
    )
    full = make_cfg(work_dir=str(tmp_path / "full"), **options)
    left = Runner.from_cfg(bare).train().state_dict()
    right = Runner.from_cfg(full).train().state_dict()
    assert_same(dict(left), dict(right))
