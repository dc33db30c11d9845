"""The specialised trainers, each with a toy that is trained for real."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from engine_toys import stacked, toy_cfg
from fasttrain.engine import build_engine
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.data_keys import MissingKeyError
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    EVALUATION_REGISTRY,
    META_ARCH_REGISTRY,
    SCORER_REGISTRY,
)
from fasttrain.engine.trainers.single_stream import recalls

VOCABULARY, LENGTH = 6, 4


def register(registry: Any, name: str) -> Any:
    def add(made: Any) -> Any:
        if name not in registry:
            registry.register(made, name=name)
        return made

    return add


class Samples(Dataset):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def values(trainer: Any, name: str) -> list[float]:
    return [value for value, _ in trainer.storage.history(name).values()]


def train(folder: Path, engine: str, model: str, data: str, **changes: Any) -> Any:
    trainer = build_engine(toy_cfg(folder, model, data, ENGINE__NAME=engine, **changes))
    trainer.train()
    return trainer


# --- Retrieval -----------------------------------------------------------------------------------


@register(DATASETS_REGISTRY, "toy_pairs")
def pairs(cfg: Any, stage: str) -> Samples:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 8, generator=generator)
    texts = images @ torch.randn(8, 8, generator=generator)
    return Samples([{"id": i, "v": v, "t": t} for i, (v, t) in enumerate(zip(images, texts))])  # noqa: B905


@register(META_ARCH_REGISTRY, "ToyTwoTowers")
class TwoTowers(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(8, 8), nn.Linear(8, 8)

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        ids = [(sample["id"], [sample["id"]]) for sample in samples]
        return {kfg.IDS: ids, "v": stacked(samples, "v"), "t": stacked(samples, "t")}

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        pair = [nn.functional.normalize(net(data[key]), dim=-1)
                for net, key in ((self.image, "v"), (self.text, "t"))]  # fmt: skip
        return {**data, kfg.OUTPUT: pair}


@register(EVALUATION_REGISTRY, "ToyRecall")
class Recall:
    def __init__(self, cfg: Any, annfile: str, output_dir: str | None) -> None:
        pass

    def eval(self, v: Tensor, t: Tensor, labels: np.ndarray) -> dict[str, float]:
        best = (t @ v.t()).argmax(1).cpu().numpy()
        return {"r1": float(labels[np.arange(len(best)), best].mean())}


def test_retrieval_learns_to_find_the_image(tmp_path: Path) -> None:
    trainer = train(
        tmp_path, "RetrievalTrainer", "ToyTwoTowers", "toy_pairs",
        LOSSES__NAMES=["BatchTriplet"], INFERENCE__NAME="ToyRecall", DATASETS__VAL="toy_pairs",
        SOLVER__EPOCH=40, SOLVER__EVAL_PERIOD=20,
    )  # fmt: skip
    losses = values(trainer, "total_loss")
    assert np.mean(losses[-4:]) < 0.3 * np.mean(losses[:4])
    assert values(trainer, "val/r1")[-1] > 0.8
    with pytest.raises(ValueError, match=r"needs an evaluator to test: set INFERENCE\.NAME"):
        trainer.test(trainer.cfg, trainer.model, trainer.val_data_loader, None, 0)


# --- Reinforcement learning ----------------------------------------------------------------------


@register(DATASETS_REGISTRY, "toy_prompts")
def prompts(cfg: Any, stage: str) -> Samples:
    return Samples([{"id": i, "x": torch.eye(4)[i % 4]} for i in range(16)])


@register(META_ARCH_REGISTRY, "ToySpeaker")
class Speaker(nn.Module):
    """Says LENGTH tokens, each drawn from its own distribution."""

    beam_searcher = SimpleNamespace(beam_size=3)

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.net = nn.Linear(4, LENGTH * VOCABULARY)

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        x = stacked(samples, "x")
        return {kfg.IDS: [sample["id"] for sample in samples], kfg.ATT_FEATS: x}

    def forward(
        self, data: dict[str, Any], use_beam_search: bool, output_sents: bool
    ) -> dict[str, Any]:
        logp = self.net(data[kfg.ATT_FEATS]).reshape(-1, LENGTH, VOCABULARY).log_softmax(-1)
        if use_beam_search:
            draws = torch.distributions.Categorical(logits=logp).sample((data[kfg.OUT_SIZE],))
            tokens = draws.transpose(0, 1)
            chosen = logp[:, None].expand(*tokens.shape, -1).gather(-1, tokens[..., None])[..., 0]
        elif data[kfg.DECODE_BY_SAMPLE]:
            tokens = torch.distributions.Categorical(logits=logp).sample()
            chosen = logp.gather(-1, tokens[..., None])[..., 0]
        else:
            chosen, tokens = logp.max(-1)
        return {**data, kfg.G_LOGP: chosen, kfg.G_SENTS_IDS: tokens}


@register(SCORER_REGISTRY, "ToyScorer")
class Scorer:
    """Rewards the share of tokens that are 5; needs one id per sequence."""

    def __init__(self, cfg: Any) -> None:
        pass

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        tokens = outputs[kfg.G_SENTS_IDS]
        assert len(outputs[kfg.IDS]) == len(tokens)
        rewards = (tokens == 5).float().mean(1).cpu().numpy()
        return {kfg.REWARDS: rewards, "CIDEr": float(rewards.mean())}


def speaker_cfg(folder: Path, engine: str, **changes: Any) -> Any:
    changes = {"ENGINE__NAME": engine, "SCORER__NAME": "ToyScorer", **changes}
    return toy_cfg(folder, "ToySpeaker", "toy_prompts", **changes)


@pytest.mark.parametrize("engine", ["RLTrainer", "RLMeanTrainer", "RLBeamTrainer"])
def test_rewards_rise(tmp_path: Path, engine: str) -> None:
    trainer = train(
        tmp_path, engine, "ToySpeaker", "toy_prompts",
        SCORER__NAME="ToyScorer", SOLVER__EPOCH=60, SOLVER__GRAD_CLIP=0.0,
    )  # fmt: skip
    scores = values(trainer, "CIDEr")
    assert np.mean(scores[-10:]) > np.mean(scores[:10]) + 0.15
    latest = trainer.storage.latest()
    assert latest["total_loss"][0] == pytest.approx(values(trainer, "total_loss")[-1])
    assert len(trainer.storage.history("total_loss")) == 120
    assert [type(loss).__name__ for loss in trainer.losses] == (
        [] if engine == "RLBeamTrainer" else ["RewardCriterion"]
    )


def test_a_scorer_without_rewards_is_named(tmp_path: Path) -> None:
    trainer = build_engine(speaker_cfg(tmp_path, "RLTrainer"))
    trainer.scorer = lambda outputs: {"CIDEr": 1.0}
    with pytest.raises(MissingKeyError, match=r"the scorer's result must hold the key 'REWARDS'"):
        trainer.train()


def test_beams_need_features(tmp_path: Path) -> None:
    trainer = build_engine(speaker_cfg(tmp_path, "RLBeamTrainer"))
    with pytest.raises(MissingKeyError, match="'ATT_FEATS'"):
        trainer.reward_losses({kfg.IDS: [1]})


# --- Single stream -------------------------------------------------------------------------------

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
    latest = trainer.storage.latest()
    assert latest["val/img_r1"][0] > 60
    assert latest["val/img_r10"][0] >= latest["val/img_r5"][0] >= latest["val/img_r1"][0]


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


# --- TDEN ----------------------------------------------------------------------------------------


@register(DATASETS_REGISTRY, "toy_sentences")
def sentences(cfg: Any, stage: str) -> Samples:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, VOCABULARY, (16, LENGTH), generator=generator)
    return Samples([{"tokens": row} for row in tokens])


@register(META_ARCH_REGISTRY, "ToyTDEN")
class Tden(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.u, self.g = nn.Linear(16, VOCABULARY), nn.Linear(16, VOCABULARY)
        self.inputs: list[dict[str, Any]] = []

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        tokens = stacked(samples, "tokens")
        masked = tokens.clone()
        masked[:, 0] = 0
        targets = torch.full_like(tokens, -1)
        targets[:, 0] = tokens[:, 0]
        return {
            kfg.U_TOKENS_IDS: masked, kfg.U_TARGET_IDS: targets,
            kfg.G_TOKENS_IDS: tokens, kfg.G_TARGET_IDS: tokens,
        }  # fmt: skip

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        self.inputs.append(data)
        return {
            **data,
            kfg.U_LOGITS: self.u(self.embed(data[kfg.U_TOKENS_IDS])),
            kfg.G_LOGITS: self.g(self.embed(data[kfg.G_TOKENS_IDS])),
        }


def tden_cfg(folder: Path, **changes: Any) -> Any:
    changes = {"ENGINE__NAME": "TDENPretrainer", **changes}
    return toy_cfg(folder, "ToyTDEN", "toy_sentences", **changes)


def test_tden_updates_twice_per_iteration(tmp_path: Path) -> None:
    trainer = build_engine(tden_cfg(tmp_path, SOLVER__EPOCH=30))
    steps: list[int] = []
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(trainer.iter))
    trainer.train()
    assert steps[:4] == [0, 0, 1, 1]
    losses = values(trainer, "total_loss")
    assert losses[-1] < 0.7 * losses[0]
    assert len(values(trainer, "second/total_loss")) == len(losses)
    first, second = trainer.model.inputs[:2]
    assert (first[kfg.SIMILARITY], second[kfg.SIMILARITY]) == (True, False)
    assert kfg.SS_PROB in first and kfg.SS_PROB not in second
    assert (second[kfg.G_TOKENS_IDS][:, 0] == 0).all()
    assert torch.equal(second[kfg.U_TOKENS_IDS][:, 1:], first[kfg.U_TOKENS_IDS][:, 1:])


def test_tden_shifts_what_was_predicted(tmp_path: Path) -> None:
    trainer = build_engine(tden_cfg(tmp_path))
    tokens = torch.tensor([[1, 2, 3]])
    data = {
        kfg.U_TOKENS_IDS: tokens, kfg.G_TOKENS_IDS: tokens,
        kfg.U_TARGET_IDS: torch.tensor([[-1, 4, -1]]), "kept": 1,
    }  # fmt: skip
    logits = nn.functional.one_hot(torch.tensor([[5, 4, 3]]), VOCABULARY).float()
    second = trainer.second_inputs(data, {kfg.U_LOGITS: logits, kfg.G_LOGITS: logits})
    assert second[kfg.U_TOKENS_IDS].tolist() == [[1, 4, 3]]
    assert second[kfg.G_TOKENS_IDS].tolist() == [[0, 5, 4]]
    assert data[kfg.U_TOKENS_IDS] is tokens and second["kept"] == 1
    with pytest.raises(MissingKeyError, match="'U_LOGITS'"):
        trainer.second_inputs(data, {kfg.G_LOGITS: logits})


# --- VCR -----------------------------------------------------------------------------------------


@register(DATASETS_REGISTRY, "toy_questions")
def questions(cfg: Any, stage: str) -> Samples:
    task = stage.split(";")[1]
    generator = torch.Generator().manual_seed(3)
    right = torch.randint(0, 4, (16,), generator=generator)
    offset = 0 if task == "VCR_Q-A" else 4
    rows = []
    for number, answer in enumerate(right.tolist()):
        choices = torch.zeros(4, 8)
        choices[answer, offset + answer] = 1.0
        rows.append({"id": number, "choices": choices, "answer": answer})
    return Samples(rows)


@register(META_ARCH_REGISTRY, "ToyChooser")
class Chooser(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.net = nn.Linear(8, 1)

    def preprocess_batch(self, samples: list[dict]) -> dict[str, Any]:
        return {
            kfg.IDS: [sample["id"] for sample in samples],
            "choices": stacked(samples, "choices").flatten(0, 1),
            kfg.U_TARGET_IDS: stacked(samples, "answer"),
        }

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, kfg.U_LOGITS: self.net(data["choices"])}


@register(EVALUATION_REGISTRY, "ToyVcr")
class VcrRating:
    def __init__(self, cfg: Any, annfile: str, output_dir: str | None) -> None:
        answers = [questions(cfg, f"val;{task}").rows for task in ("VCR_Q-A", "VCR_QA-R")]
        self.answers = [{row["id"]: row["answer"] for row in rows} for rows in answers]

    def eval(self, results: list[list[dict]], epoch: int) -> dict[str, float]:
        right = [
            np.mean([self.answers[task][r["image_id"]] == r["caption"] for r in found])
            for task, found in enumerate(results)
        ]
        return {"Q-A": float(right[0]), "QA-R": float(right[1])}


def test_vcr_trains_both_tasks(tmp_path: Path) -> None:
    trainer = train(
        tmp_path, "VCRTrainer", "ToyChooser", "toy_questions",
        DATASETS__VAL="toy_questions", INFERENCE__NAME="ToyVcr", DATALOADER__SEQ_PER_SAMPLE=4,
        SOLVER__EPOCH=20, SOLVER__BASE_LR=0.1, SOLVER__EVAL_PERIOD=10,
    )  # fmt: skip
    assert trainer.iters_per_epoch == 2
    for name in ("total_loss", "VCR_QA-R/total_loss"):
        losses = values(trainer, name)
        assert losses[-1] < 0.5 * losses[0]
    assert trainer.storage.latest()["val/Q-A"] == (1.0, 40)
    assert trainer.storage.latest()["val/QA-R"] == (1.0, 40)
    with pytest.raises(MissingKeyError, match="'U_LOGITS'"):
        trainer._by_question({}, trainer.cfg)
