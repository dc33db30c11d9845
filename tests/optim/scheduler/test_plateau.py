"""Reducing a value when a metric stops improving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fasttrain.optim import OptimWrapper, ReduceOnPlateauLR, ReduceOnPlateauMomentum
from support import check_save_and_resume


def make_optimizer() -> torch.optim.Optimizer:
    groups = [{"params": nn.Linear(1, 1).parameters(), "lr": lr} for lr in (0.1, 0.02)]
    return torch.optim.SGD(groups, lr=0.5, momentum=0.8)


def feed(scheduler: Any, metrics: list[float], key: str = "lr") -> list[float]:
    shown = []
    for value in metrics:
        scheduler.step({"loss": value})
        shown.append(scheduler.optimizer.param_groups[0][key])
    return shown


METRICS = [1.0, 0.9, 0.95, 0.92, 0.91, 0.8, 0.85, 0.86, 0.87, 0.88, 0.89, 0.9]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"patience": 1},
        {"patience": 0, "cooldown": 2},
        {"patience": 1, "threshold": 0.1, "threshold_rule": "abs"},
        {"patience": 1, "min_value": [0.05, 0.0]},
        {"patience": 0, "factor": 0.5, "eps": 0.02},
    ],
)
def test_agrees_with_torch(kwargs: dict[str, Any]) -> None:
    renamed = {"threshold_rule": "threshold_mode", "min_value": "min_lr"}
    reference = make_optimizer()
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        reference, **{renamed.get(key, key): value for key, value in kwargs.items()}
    )
    expected = []
    for value in METRICS:
        theirs.step(value)
        expected.append(reference.param_groups[0]["lr"])
    assert feed(ReduceOnPlateauLR(make_optimizer(), **kwargs), METRICS) == expected


def test_rule_greater() -> None:
    scheduler = ReduceOnPlateauLR(make_optimizer(), rule="greater", patience=0, factor=0.5)
    assert feed(scheduler, [0.1, 0.2, 0.2, 0.3]) == [0.1, 0.1, 0.05, 0.05]
    assert (scheduler.best, scheduler.num_bad_epochs) == (0.3, 0)


def test_acts_between_begin_and_end_of_counted_epochs() -> None:
    scheduler = ReduceOnPlateauLR(make_optimizer(), patience=0, factor=0.5, begin=1, end=3)
    shown = []
    for _ in range(5):
        scheduler.step({"loss": 1.0})
        shown.append((scheduler.optimizer.param_groups[0]["lr"], scheduler.last_step))
        scheduler.step()
    assert shown == [(0.1, -1), (0.1, 0), (0.05, 1), (0.05, 1), (0.05, 1)]


def test_momentum_and_betas() -> None:
    momentum = ReduceOnPlateauMomentum(make_optimizer(), patience=0, factor=0.5)
    assert feed(momentum, [1.0, 1.0], "momentum") == [0.8, 0.4]
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters())
    betas = ReduceOnPlateauMomentum(optimizer, patience=0, factor=0.5)
    assert feed(betas, [1.0, 1.0], "betas") == [(0.9, 0.999), (0.45, 0.999)]


def test_leaves_the_optimizers_step_alone() -> None:
    optimizer = make_optimizer()
    scheduler = ReduceOnPlateauLR(optimizer)
    assert "step" not in vars(optimizer)
    assert scheduler.need_val_args
    assert scheduler.get_last_value() == [0.1, 0.02]


def test_a_tensor_becomes_a_number() -> None:
    scheduler = ReduceOnPlateauLR(make_optimizer())
    scheduler.step({"loss": torch.tensor(0.5)})
    assert type(scheduler.best) is float


def test_resumes() -> None:
    def make() -> Any:
        wrapper = OptimWrapper(make_optimizer())
        return wrapper, ReduceOnPlateauLR(wrapper, patience=1, cooldown=1)

    def advance(part: Any, step: int) -> Any:
        part[1].step({"loss": METRICS[step]})
        part[1].step()
        return part[1].get_last_value()

    def load(part: Any, saved: Any) -> None:
        part[0].load_state_dict(saved[0])
        part[1].load_state_dict(saved[1])

    check_save_and_resume(
        make, advance, state=lambda part: [p.state_dict() for p in part], load=load
    )


def test_bad_arguments() -> None:
    optimizer = make_optimizer()
    for kwargs, text in (
        ({"factor": 1.0}, r"Factor should be < 1.0."),
        ({"rule": "best"}, "mode best is unknown!"),
        ({"threshold_rule": "both"}, "threshold mode both is unknown!"),
        ({"min_value": [1.0]}, "expected 2 min_lrs, got 1"),
    ):
        with pytest.raises(ValueError, match=text):
            ReduceOnPlateauLR(optimizer, **kwargs)
    with pytest.raises(AssertionError, match="ReduceOnPlateauLR only support by_epoch=True"):
        ReduceOnPlateauLR(optimizer, by_epoch=False)
    scheduler = ReduceOnPlateauLR(optimizer, monitor="acc")
    with pytest.raises(TypeError, match="metrics type should be dict, but got type <class 'float'"):
        scheduler.step(1.0)
    with pytest.raises(KeyError, match=r"key in \['loss'\], but got key acc is not in dict"):
        scheduler.step({"loss": 1.0})
