"""Single-stream retrieval: a toy matcher, its hard negatives and its recalls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from engine_toys import Samples, register, stacked, toy_cfg, train, values
from fasttrain.engine import build_engine
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.config import changed
from fasttrain.engine.data_keys import MissingKeyError
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    META_ARCH_REGISTRY,
)
from fasttrain.engine.trainers import single_stream
from fasttrain.engine.trainers.single_stream import recalls

IMAGES, PADDING = 12, 2


def match_sample(image: int, text: int) -> dict[str, Any]:
    feats = torch.zeros(3 + PADDING, IMAGES)
    feats[:3, image] = 1.0
    tokens = torch.zeros(2 + PADDING, dtype=torch.long)
    tokens[:2] = text + 1
    return {
        "image": image, "text": text,
        kfg.ATT_FEATS: feats, kfg.ATT_FEATS_LOC: torch.zeros(3 + PADDING, 5),
        kfg.ATT_MASKS: torch.tensor([1] * 3 + [0] * PADDING),
        kfg.U_TOKENS_IDS: tokens, kfg.U_TOKENS_TYPE: torch.zeros_like(tokens),
        kfg.TOKENS_MASKS: torch.tensor([1] * 2 + [0] * PADDING),
    }  # fmt: skip


class Chunks(Samples):
    total_img_num = IMAGES


@register(DATASETS_REGISTRY, "toy_matches")
def matches(cfg: Any, stage: str) -> Samples:
    if stage == "train":
        return Samples([match_sample(i % IMAGES, i % IMAGES) for i in range(48)])
    texts = []
    for text in range(IMAGES):
        pairs_of_text = [match_sample(image, text) for image in range(IMAGES)]
        chunks = [pairs_of_text[:5], pairs_of_text[5:]]
        texts.append([{"pairs": chunk, "matched_imgfeatidx": text} for chunk in chunks])
    return Chunks(texts)


@register(META_ARCH_REGISTRY, "ToyMatcher")
class Matcher(nn.Module):
    KEYS = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS,
            kfg.U_TOKENS_IDS, kfg.U_TOKENS_TYPE, kfg.TOKENS_MASKS)  # fmt: skip

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.text = nn.Embedding(IMAGES + 1, IMAGES)
        self.cfg = cfg
        self.batches: list[int] = []

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        if "pairs" in samples[0]:
            samples = samples[0]["pairs"]
        return {key: stacked(samples, key) for key in self.KEYS}

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        image = data[kfg.ATT_FEATS].sum(1)
        score = (image * self.text(data[kfg.U_TOKENS_IDS][:, 0])).sum(-1, keepdim=True)
        outputs = {**data, kfg.OUTPUT: score}
        if self.training:
            self.batches.append(len(score))
            per_sample = data.get(kfg.SAMPLE_PER_SAMPLE, 1)
            grouped = score.reshape(-1, per_sample)
            outputs[kfg.U_LOGITS] = grouped
            outputs[kfg.U_TARGET_IDS] = torch.zeros(len(grouped), dtype=torch.long)
        return outputs


def test_hard_negatives_teach_matching(tmp_path: Path) -> None:
    trainer = train(
        tmp_path, "SingleStreamRetrievalTrainerHardNegatives", "ToyMatcher", "toy_matches",
        DATASETS__VAL="toy_matches", DATALOADER__NEGATIVE_SIZE=3, DATALOADER__TEST_BATCH_SIZE=1,
        SOLVER__EPOCH=12, SOLVER__EVAL_PERIOD=6, SOLVER__BASE_LR=0.1,
    )  # fmt: skip
    assert set(trainer.model.batches) == {8 * 4}
    losses = values(trainer, "total_loss")
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:6])
    latest = trainer.storage.latest()
    assert latest["val/img_r1"][0] > 60
    assert latest["val/img_r10"][0] >= latest["val/img_r5"][0] >= latest["val/img_r1"][0]


@register(META_ARCH_REGISTRY, "ToyPairMatcher")
class PairMatcher(Matcher):
    """Learns from pairs, every other of which is wrong."""

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        if self.training:
            texts = data[kfg.U_TOKENS_IDS].clone()
            texts[1::2] = texts[1::2].roll(1, dims=0)
            data = {**data, kfg.U_TOKENS_IDS: texts}
        outputs = super().forward(data)
        if self.training:
            score = outputs[kfg.OUTPUT]
            outputs[kfg.U_LOGITS] = torch.cat([torch.zeros_like(score), score], 1)
            right = data[kfg.ATT_FEATS][:, 0].argmax(-1) + 1 == data[kfg.U_TOKENS_IDS][:, 0]
            outputs[kfg.U_TARGET_IDS] = right.long()
        return outputs


def test_single_stream_learns_from_pairs(tmp_path: Path) -> None:
    trainer = train(
        tmp_path, "SingleStreamRetrievalTrainer", "ToyPairMatcher", "toy_matches",
        DATASETS__VAL="toy_matches", SOLVER__EPOCH=16, SOLVER__EVAL_PERIOD=8, SOLVER__BASE_LR=0.1,
    )  # fmt: skip
    losses = values(trainer, "total_loss")
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:6])
    assert values(trainer, "val/img_r1")[-1] > 60


def test_the_texts_of_all_processes_are_rated_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = toy_cfg(tmp_path, "ToyMatcher", "toy_matches", DATASETS__VAL="toy_matches")
    trainer = build_engine(changed(cfg, {"ENGINE.NAME": "SingleStreamRetrievalTrainer"}))
    loader = trainer.val_data_loader
    whole = trainer.test(cfg, trainer.model, loader, None, 0)
    rows, shares = loader.dataset.rows, []

    def all_gather(mine: Any) -> list[Any]:
        shares.append(mine)
        return list(shares)

    monkeypatch.setattr(single_stream.comm, "all_gather", all_gather)
    for loader.dataset.rows in (rows[:5], rows[5:]):
        loader = DataLoader(loader.dataset, batch_size=1, collate_fn=loader.collate_fn)
        found = trainer.test(cfg, trainer.model, loader, None, 0)
    assert found == whole and len(shares) == 2


def test_mining_finds_the_hardest_texts_of_others(tmp_path: Path) -> None:
    cfg = toy_cfg(
        tmp_path, "ToyMatcher", "toy_matches", DATALOADER__NEGATIVE_SIZE=2,
        ENGINE__NAME="SingleStreamRetrievalTrainerHardNegatives",
    )  # fmt: skip
    trainer = build_engine(cfg)
    samples = [match_sample(i, i) for i in range(4)]
    clipped = trainer.clip_inputs(trainer.model.preprocess_batch(samples))
    assert clipped[kfg.ATT_FEATS].shape == (4, 3, IMAGES)
    assert clipped[kfg.U_TOKENS_IDS].shape == (4, 2)
    with torch.no_grad():  # every image finds its own text best, which is no negative
        trainer.model.text.weight[1:, :].add_(10 * torch.eye(IMAGES))
    mined = trainer.hard_negative_mining(clipped)
    weight = trainer.model.text.weight.detach()
    for image in range(4):
        others = sorted((j for j in range(4) if j != image), key=lambda j: -weight[j + 1, image])
        rows = mined[kfg.U_TOKENS_IDS][image * 3 : image * 3 + 3, 0]
        assert rows.tolist() == [image + 1, others[0] + 1, others[1] + 1]
    with pytest.raises(ValueError, match="2 hard negatives need a batch of more than 2, got 2"):
        trainer.hard_negative_mining(trainer.model.preprocess_batch(samples[:2]))
    with pytest.raises(MissingKeyError, match="'TOKENS_MASKS'"):
        trainer.clip_inputs({k: v for k, v in clipped.items() if k != kfg.TOKENS_MASKS})
    cfg.DATALOADER.NEGATIVE_SIZE = 0
    with pytest.raises(ValueError, match=r"NEGATIVE_SIZE must be >= 1, got 0"):
        build_engine(cfg)


def test_recalls_of_fewer_than_ten_images() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    found = recalls(scores, np.array([0, 1]))
    assert found == {"img_r1": 50.0, "img_r5": 100.0, "img_r10": 100.0,
                     "img_r_mean": pytest.approx(250 / 3)}  # fmt: skip


def test_chunks_are_checked(tmp_path: Path) -> None:
    cfg = toy_cfg(
        tmp_path, "ToyMatcher", "toy_matches", DATASETS__VAL="toy_matches",
        ENGINE__NAME="SingleStreamRetrievalTrainer",
    )  # fmt: skip
    trainer = build_engine(cfg)
    loader = trainer.val_data_loader
    assert loader.batch_size == 1
    row = loader.dataset.rows[0]
    loader.dataset.rows = [row[:1]]
    with pytest.raises(ValueError, match="a text was scored with 5 images, expected 12"):
        trainer.test(cfg, trainer.model, loader, None, 0)
    loader.dataset.rows = [[{"pairs": chunk["pairs"]} for chunk in row]]
    with pytest.raises(MissingKeyError, match="a chunk must hold the key 'matched_imgfeatidx'"):
        trainer.test(cfg, trainer.model, loader, None, 0)
