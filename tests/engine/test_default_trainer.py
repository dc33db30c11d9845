"""DefaultTrainer: trains a toy for real, resumes exactly, and says what is wrong with a config."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engine_toys import Accuracy, Classifier, Rows, toy_cfg
from fasttrain.config import Config
from fasttrain.engine import Checkpointer, DefaultTrainer, HookBase, build_engine
from fasttrain.engine.config import changed, text_of
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    EVALUATION_REGISTRY,
    META_ARCH_REGISTRY,
)
from support import assert_same


@pytest.fixture(autouse=True)
def registered() -> None:
    for registry, name, value in (
        (META_ARCH_REGISTRY, "ToyClassifier", Classifier),
        (DATASETS_REGISTRY, "toy_rows", make_rows),
        (EVALUATION_REGISTRY, "ToyAccuracy", Accuracy),
    ):
        if name not in registry:
            registry.register(value, name=name)


def make_rows(cfg: Any, stage: str) -> Rows:
    return Rows()


def cfg_of(folder: Path, **changes: Any) -> Any:
    return toy_cfg(folder, "ToyClassifier", "toy_rows", **changes)


def history(trainer: DefaultTrainer, name: str) -> list[float]:
    return [value for value, _ in trainer.storage.history(name).values()]


def test_a_run_learns_evaluates_writes_and_saves(tmp_path: Path) -> None:
    cfg = cfg_of(
        tmp_path,
        DATASETS__VAL="toy_rows",
        DATASETS__TEST="toy_rows",
        INFERENCE__NAME="ToyAccuracy",
        MODEL__USE_EMA=True,
        SOLVER__EPOCH=12,
        SOLVER__EVAL_PERIOD=4,
        SOLVER__CHECKPOINT_PERIOD=1,
        SOLVER__CHECKPOINT_MAX_TO_KEEP=2,
    )
    trainer = build_engine(cfg)
    assert isinstance(trainer, DefaultTrainer)
    trainer.resume_or_load(resume=False)
    trainer.train()
    losses = history(trainer, "total_loss")
    assert losses[-1] < 0.7 * losses[0]
    assert history(trainer, "val/accuracy")[-1] > 0.8
    for name in ("val", "val_ema", "test", "test_ema"):  # none overwrites another's
        assert len(history(trainer, f"{name}/accuracy")) == 3
    assert trainer.val_evaluator.epochs == [4, 4, 8, 8, 12, 12]
    files = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert files == [
        "model_Epoch_00011_Iter_0000043.pth",
        "model_Epoch_00012_Iter_0000047.pth",
        "model_final.pth",
    ]
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert rows[-1]["iteration"] == 48 and "val/accuracy" in rows[-1]
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert list(content) == ["model", "trainer", "iteration"]
    assert {"iteration", "hooks", "optimizer", "scheduler", "ema"} <= set(content["trainer"])


def test_a_resumed_run_ends_like_the_whole_one(tmp_path: Path) -> None:
    """Each epoch sees all data in one batch, so that the order of samples plays no part."""
    changes: dict[str, Any] = {
        "DATALOADER__TRAIN_BATCH_SIZE": 32,
        "MODEL__USE_EMA": True,
        "LR_SCHEDULER__NAME": "WarmupCosine",
        "SOLVER__EPOCH": 8,
        "SOLVER__CHECKPOINT_PERIOD": 3,
    }

    def in_order(trainer: DefaultTrainer) -> DefaultTrainer:
        batch = [trainer.train_data_loader.dataset[i] for i in range(32)]
        trainer.next_batch = lambda: batch  # type: ignore[method-assign]
        return trainer

    whole = in_order(DefaultTrainer(cfg_of(tmp_path / "whole", **changes)))
    whole.train()

    class Killer(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 4:
                raise KeyboardInterrupt

    cut = in_order(DefaultTrainer(cfg_of(tmp_path / "cut", **changes)))
    cut.register_hooks([Killer()])
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    fresh = in_order(DefaultTrainer(cfg_of(tmp_path / "cut", **changes)))
    fresh.resume_or_load(resume=True)
    assert fresh.start_iter == 3
    fresh.train()
    assert_same(fresh.model.state_dict(), whole.model.state_dict())
    assert fresh.ema is not None and whole.ema is not None
    assert_same(fresh.ema.state_dict(), whole.ema.state_dict())
    assert_same(fresh.optimizer.state_dict(), whole.optimizer.state_dict())


def test_metrics_holding_acc_are_not_trained_on(tmp_path: Path) -> None:
    trainer = DefaultTrainer(cfg_of(tmp_path, SOLVER__EPOCH=1))
    trainer.losses.append(lambda outputs: {"acc": torch.tensor(5.0)})
    trainer.train()
    latest = trainer.storage.latest()
    assert latest["total_loss"][0] == pytest.approx(latest["CrossEntropy Loss(G)"][0])
    assert latest["acc"] == (5.0, 3)


def test_scheduled_sampling_reaches_the_data(tmp_path: Path) -> None:
    seen: list[float] = []

    class Model(Classifier):
        def forward(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            seen.append(data["SS_PROB"])
            return super().forward(data, **kwargs)

    trainer = DefaultTrainer(
        cfg_of(
            tmp_path,
            SOLVER__EPOCH=3,
            SCHEDULED_SAMPLING__START_EPOCH=0,
            SCHEDULED_SAMPLING__INC_EVERY_EPOCH=1,
        )
    )
    trainer.model = Model()
    trainer.train()
    assert seen == pytest.approx([0.0] * 4 + [0.05] * 4 + [0.1] * 4)


def test_accumulation_steps_every_second_iteration(tmp_path: Path) -> None:
    trainer = DefaultTrainer(cfg_of(tmp_path, SOLVER__EPOCH=1, SOLVER__ACCUMULATION=2))
    steps: list[int] = []
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(trainer.iter))
    trainer.train()
    assert steps == [1, 3]


def test_the_rate_scales_with_the_world(tmp_path: Path) -> None:
    cfg = cfg_of(tmp_path)
    assert DefaultTrainer.auto_scale_workers(cfg, 4) is cfg
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 2
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 4)
    assert (scaled.DATALOADER.TRAIN_BATCH_SIZE, scaled.SOLVER.BASE_LR) == (8, 0.04)
    assert scaled.is_frozen() and cfg.SOLVER.BASE_LR == 0.02
    alone = DefaultTrainer(cfg)  # one process, where two were reckoned with
    assert alone.optimizer.param_groups[0]["lr"] == 0.01
    assert alone.cfg.SOLVER.REFERENCE_WORLD_SIZE == 1


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"DATASETS__TRAIN": ""}, ValueError, "DATASETS.TRAIN must name a data set"),
        ({"DATASETS__TRAIN": "toy_row"}, KeyError, r"no 'toy_row' .*nearest: toy_rows"),
        ({"DATALOADER__TRAIN_BATCH_SIZE": 64}, ValueError, "has 32 samples .* batch of 64"),
        ({"MODEL__META_ARCHITECTURE": "Toy"}, KeyError, r"no 'Toy' in the META_ARCH registry"),
        ({"LOSSES__NAMES": ["CrossEntropi"]}, KeyError, r"nearest: CrossEntropy"),
        ({"ENGINE__NAME": "Default"}, KeyError, r"no 'Default' in the ENGINE registry"),
    ],
)
def test_bad_configs(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        build_engine(cfg_of(tmp_path, **changes))


def test_a_model_without_preprocess_batch_is_refused(tmp_path: Path) -> None:
    if "ToyBare" not in META_ARCH_REGISTRY:
        META_ARCH_REGISTRY.register(lambda cfg: nn.Linear(1, 1), name="ToyBare")
    with pytest.raises(TypeError, match="Linear must have a method preprocess_batch"):
        DefaultTrainer(cfg_of(tmp_path, MODEL__META_ARCHITECTURE="ToyBare"))


def test_no_loss_at_all_is_an_error(tmp_path: Path) -> None:
    trainer = DefaultTrainer(cfg_of(tmp_path, LOSSES__NAMES=[""]))
    with pytest.raises(ValueError, match=r"LOSSES\.NAMES names no loss"):
        trainer.train()


def test_a_gpu_that_is_not_there_means_the_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    trainer = DefaultTrainer(cfg_of(tmp_path, MODEL__DEVICE="cuda"))
    assert next(trainer.model.parameters()).device.type == "cpu"
    assert "there is no GPU here: training on the CPU" in caplog.text


def test_any_kind_of_config_will_do(tmp_path: Path) -> None:
    """yacs's (ours is alike), the other face's, a lazy one of plain objects, a plain dict."""
    plain = json.loads(json.dumps(cfg_of(tmp_path, SOLVER__EPOCH=1, ENGINE__NAME="DefaultTrainer")))
    for cfg in (plain, Config(plain), Config(plain)._cfg_dict, objects_of(plain)):
        trainer = build_engine(cfg)
        trainer.train()
        assert trainer.iter == 4
        with pytest.raises(AttributeError, match="GONE"):
            _ = trainer.cfg.GONE
        scaled = DefaultTrainer.auto_scale_workers(
            changed(trainer.cfg, {"SOLVER.REFERENCE_WORLD_SIZE": 1}), 2
        )
        assert (scaled.SOLVER.BASE_LR, trainer.cfg.SOLVER.BASE_LR) == (0.04, 0.02)
        assert "TRAIN_BATCH_SIZE: 8" in text_of(trainer.cfg)


def objects_of(content: Any) -> Any:
    if isinstance(content, dict):
        return SimpleNamespace(**{key: objects_of(value) for key, value in content.items()})
    return content


def test_the_best_checkpoint_is_an_option(tmp_path: Path) -> None:
    trainer = DefaultTrainer(
        cfg_of(
            tmp_path,
            DATASETS__VAL="toy_rows",
            INFERENCE__NAME="ToyAccuracy",
            SOLVER__EPOCH=3,
            SOLVER__BEST_METRIC="val/accuracy",
        )
    )
    trainer.train()
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    accuracies = trainer.storage.history("val/accuracy").values()
    first_best = max(accuracies, key=lambda pair: (pair[0], -pair[1]))
    assert best["iteration"] == first_best[1]


def test_resuming_says_what_it_restored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    DefaultTrainer(cfg_of(tmp_path, SOLVER__EPOCH=1)).train()
    again = DefaultTrainer(cfg_of(tmp_path, SOLVER__EPOCH=2, MODEL__USE_EMA=True))
    again.resume_or_load()
    assert "Resumed at iteration 4: optimizer, scheduler, hook LRScheduler" in caplog.text
    assert "The checkpoint holds no EMA: it starts anew" in caplog.text
    again.train()
    assert again.iter == 8
    finished = DefaultTrainer(cfg_of(tmp_path, SOLVER__EPOCH=1))
    finished.resume_or_load()
    with pytest.raises(ValueError, match=r"start_iter must be <= max_iter, got 8 > 4"):
        finished.train()


def test_a_folder_of_weights_only_starts_at_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Checkpointer(Classifier(), tmp_path).save("bare")
    trainer = DefaultTrainer(cfg_of(tmp_path))
    trainer.resume_or_load()
    assert trainer.start_iter == 0
    assert "The checkpoint holds weights only: training starts at iteration 0" in caplog.text


def test_a_run_may_be_trained_on(tmp_path: Path) -> None:
    """Hooks and writers that closed at the end of a training open again."""
    trainer = DefaultTrainer(
        cfg_of(tmp_path, SOLVER__EPOCH=1, DATASETS__VAL="toy_rows", INFERENCE__NAME="ToyAccuracy")
    )
    trainer.train()
    trainer.start_iter, trainer.max_iter = 4, 8
    trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert rows[-1]["iteration"] == 8
    assert trainer.val_evaluator.epochs == [1, 2]
