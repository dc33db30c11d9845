"""Learning-rate schedules against their formulas, through the registry and a scheduler."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import SGD

from fasttrain.engine.defaults_cfg import get_cfg
from fasttrain.engine.lr_schedules import build_lr_scheduler, noam, warmup_linear

IPE = 10  # iterations per epoch
LR = 0.5


def rates(name: str, steps: int = 100, **section: object) -> list[float]:
    cfg = get_cfg()
    cfg.SOLVER.EPOCH = 10
    cfg.LR_SCHEDULER.NAME = name
    cfg.LR_SCHEDULER.update(section)
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = build_lr_scheduler(cfg, optimizer, IPE)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_step() -> None:
    assert rates("StepLR", STEP_SIZE=2, GAMMA=0.5) == [LR * 0.5 ** (s // 20) for s in range(100)]


def test_fix() -> None:
    assert set(rates("FixLR")) == {LR}


def test_multi_step() -> None:
    expected = [LR * 0.1 ** ((s >= 30) + (s >= 70)) for s in range(100)]
    assert rates("MultiStepLR", MILESTONES=(3, 7), GAMMA=0.1) == pytest.approx(expected)
    assert len(set(rates("MultiStepLR"))) == 2  # MILESTONES has a default


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_warmed_multi_step(method: str) -> None:
    found = rates(
        "WarmupMultiStepLR", STEPS=(5,), WARMUP=2, WARMUP_FACTOR=0.1, WARMUP_METHOD=method
    )
    for step, rate in enumerate(found):
        warm = 1.0
        if step < 20:
            warm = 0.1 if method == "constant" else 0.1 + 0.9 * step / 20
        assert rate == pytest.approx(LR * warm * 0.1 ** (step >= 50))


def test_warmup_constant_starts_at_zero() -> None:
    found = rates("WarmupConstant", WARMUP=2)
    assert found[0] == 0.0
    assert found[10] == pytest.approx(LR / 2)
    assert set(found[20:]) == {LR}


def test_warmup_linear_and_cosine_end_at_the_floor() -> None:
    linear = rates("WarmupLinear", WARMUP=2, MIN_LR=0.25)
    cosine = rates("WarmupCosine", WARMUP=2, MIN_LR=0.25)
    for step in range(20, 100):
        share = (step - 20) / 80
        assert linear[step] == pytest.approx(LR * max(0.25, 1 - share))
        assert cosine[step] == pytest.approx(LR * max(0.25, 0.5 * (1 + math.cos(math.pi * share))))
    assert linear[:20] == cosine[:20] == pytest.approx([LR * s / 20 for s in range(20)])


def test_hard_restarts_end_at_zero() -> None:
    found = rates("WarmupCosineWithHardRestarts", steps=105, WARMUP=2)
    assert found[60] == pytest.approx(LR / 2)
    assert found[100:] == [0.0] * 5


def test_noam_ignores_the_base_rate() -> None:
    found = rates("NoamLR", MODEL_SIZE=64, WARMUP=8, FACTOR=2.0)
    assert found == pytest.approx(
        [2.0 * 64**-0.5 * min((s + 1) ** -0.5, (s + 1) * 8**-1.5) for s in range(100)]
    )
    assert max(found) == found[7]
    assert noam(3, model_size=4, warmup_steps=0, factor=1) == pytest.approx(0.25)


def test_schedules_are_pure_functions() -> None:
    value = warmup_linear(30, warmup_steps=20, total_steps=100, floor=0.0)
    assert value == warmup_linear(30, warmup_steps=20, total_steps=100, floor=0.0) == 0.875


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"NAME": "StepLr"}, "no 'StepLr' in the LR_SCHEDULER registry .nearest: StepLR"),
        ({"NAME": "NoamLR"}, "NoamLR needs LR_SCHEDULER.MODEL_SIZE > 0, got -1"),
        ({"NAME": "StepLR", "STEP_SIZE": 0}, "STEP_SIZE must be >= 1 iteration, got 0"),
        ({"NAME": "MultiStepLR", "MILESTONES": (5, 2)}, "MILESTONES must rise"),
        ({"NAME": "WarmupMultiStepLR", "WARMUP_METHOD": "exp"}, "must be 'linear' or 'constant'"),
    ],
)
def test_bad_settings(section: dict, text: str) -> None:
    with pytest.raises((KeyError, ValueError), match=text):
        rates(section.pop("NAME"), **section)
