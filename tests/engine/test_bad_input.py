"""What goes wrong in the middle of a run: a clear error, nothing of it lost, and all is let go."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_toys import Classifier, Rows, register, toy_cfg
from fasttrain.engine import CallbackHook, DefaultTrainer
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.registries import DATASETS_REGISTRY, META_ARCH_REGISTRY

GOOD_STEPS = 5


@register(DATASETS_REGISTRY, "toy_rows")
def rows(cfg: Any, stage: str) -> Rows:
    return Rows()


@register(META_ARCH_REGISTRY, "ToyClassifier")
class Toy(Classifier):
    pass


def no_scalar(trainer: DefaultTrainer) -> None:
    trainer.losses.append(lambda outputs: {"odd loss": outputs[kfg.G_LOGITS]})


def no_tensor(trainer: DefaultTrainer) -> None:
    trainer.losses.append(lambda outputs: {"odd loss": "one"})


def nan(trainer: DefaultTrainer) -> None:
    trainer.losses.append(lambda outputs: {"odd loss": outputs[kfg.G_LOGITS].sum() * math.nan})


def no_loss(trainer: DefaultTrainer) -> None:
    trainer.losses.clear()


def only_metrics(trainer: DefaultTrainer) -> None:
    trainer.losses[:] = [lambda outputs: {"accuracy": outputs[kfg.G_LOGITS].mean()}]


def no_target(trainer: DefaultTrainer) -> None:
    own = trainer.model.forward
    trainer.model.forward = lambda data: {  # type: ignore[method-assign]
        key: value for key, value in own(data).items() if key != kfg.G_TARGET_IDS
    }


def no_preprocessing(trainer: DefaultTrainer) -> None:
    def preprocess_batch(samples: Any) -> None:
        raise LookupError("sample 7 has no label")

    trainer.model.preprocess_batch = preprocess_batch  # type: ignore[assignment]


def empty_loader(trainer: DefaultTrainer) -> None:
    trainer.train_data_loader = []
    trainer._train_data_loader_iter = trainer.endless_batches()


def eval_mode(trainer: DefaultTrainer) -> None:
    trainer.model.eval()


@pytest.mark.parametrize(
    ("spoil", "error", "text"),
    [
        (no_scalar, TypeError, r"loss 'odd loss' must be a scalar tensor, got \(8, 3\)"),
        (no_tensor, TypeError, "loss 'odd loss' must be a scalar tensor, got str"),
        (nan, FloatingPointError, f"infinite or NaN at iteration={GOOD_STEPS}!"),
        (no_loss, ValueError, "LOSSES.NAMES names no loss"),
        (only_metrics, ValueError, r"no loss to backpropagate among \['accuracy'\]"),
        (no_target, kfg.MissingKeyError, "outputs for CrossEntropy must hold the key 'G_TARGET"),
        (no_preprocessing, LookupError, "sample 7 has no label"),
        (empty_loader, ValueError, "the data loader is empty: expected at least one batch"),
        (eval_mode, AssertionError, "model was changed to eval mode"),
    ],
)
def test_a_run_that_breaks_loses_nothing(
    tmp_path: Path, spoil: Callable[[DefaultTrainer], None], error: type[Exception], text: str
) -> None:
    trainer = DefaultTrainer(toy_cfg(tmp_path, "ToyClassifier", "toy_rows"))
    ended: list[int] = []

    def maybe_spoil(trainer: Any) -> None:
        if trainer.iter == GOOD_STEPS:
            spoil(trainer)

    trainer.register_hooks(
        [CallbackHook(before_step=maybe_spoil, after_train=lambda t: ended.append(t.iter))]
    )
    with pytest.raises(error, match=text):
        trainer.train()
    assert ended == [trainer.iter] == [GOOD_STEPS]
    written = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    with_losses = [row["iteration"] for row in written if "total_loss" in row]
    assert with_losses[-1] >= GOOD_STEPS - 1
    trainer.checkpointer.save("rescued")  # the folder is free again
    assert torch.load(tmp_path / "rescued.pth")["trainer"]["iteration"] == GOOD_STEPS


def test_a_loader_without_a_batch_is_refused_at_once(tmp_path: Path) -> None:
    class Empty(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg: Any) -> Any:
            return []

    with pytest.raises(ValueError, match="the training loader is empty: expected at least one"):
        Empty(toy_cfg(tmp_path, "ToyClassifier", "toy_rows"))


def test_a_frozen_config_is_left_alone(tmp_path: Path) -> None:
    cfg = toy_cfg(tmp_path, "ToyClassifier", "toy_rows", SOLVER__EPOCH=1)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 2
    before = cfg.clone()
    cfg.freeze()
    DefaultTrainer(cfg).train()
    assert cfg == before
    with pytest.raises(AttributeError, match="'BASE_LR', but the config is frozen; call defrost"):
        cfg.SOLVER.BASE_LR = 1.0
