"""Two-tower retrieval: find a function of the standard library by what it is documented to do.

    python examples/retrieval/train.py [--resume] [KEY VALUE ...]

trains with RetrievalTrainer on the docstrings that come with Python and prints recall@10 on
functions that were held out, beside that of chance.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).parent))

from docstrings import NUM_BUCKETS, bags, standard_library_pairs

from fasttrain.engine import (
    RetrievalTrainer,
    build_engine,
    default_argument_parser,
    default_setup,
    get_cfg,
    launch,
)
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.registries import (
    DATASETS_REGISTRY,
    EVALUATION_REGISTRY,
    LOSSES_REGISTRY,
    META_ARCH_REGISTRY,
)

NUM_HELD_OUT = 500


@DATASETS_REGISTRY.register()
class Docstrings(Dataset[tuple[int, str, str]]):
    """(id, name, docstring); the last NUM_HELD_OUT of a fixed shuffle are for validation."""

    def __init__(self, cfg: Any, stage: str) -> None:
        pairs = standard_library_pairs()
        random.Random(0).shuffle(pairs)
        numbered = [(i, *pair) for i, pair in enumerate(pairs)]
        self.pairs = numbered[:-NUM_HELD_OUT] if stage == "train" else numbered[-NUM_HELD_OUT:]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[int, str, str]:
        return self.pairs[index]


class Tower(nn.Module):
    """Mean of hashed word and letter embeddings, then two layers, to unit length [B, dim]."""

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(NUM_BUCKETS, dim, mode="mean")
        self.net = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, bag: tuple[Tensor, Tensor]) -> Tensor:
        mean = self.embed(*bag)
        return F.normalize(mean + self.net(mean), dim=-1)


@META_ARCH_REGISTRY.register()
class TwoTowers(nn.Module):
    """One tower for names, one for docstrings, and a learned temperature."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.names, self.texts = Tower(), Tower()
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def preprocess_batch(self, samples: list[tuple[int, str, str]]) -> dict[str, Any]:
        device = self.log_scale.device
        numbers, names, texts = zip(*samples, strict=True)
        return {
            kfg.IDS: [(number, [number]) for number in numbers],
            "names": tuple(part.to(device) for part in bags(list(names))),
            "texts": tuple(part.to(device) for part in bags(list(texts))),
        }

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        pair = (self.names(data["names"]), self.texts(data["texts"]))
        return {**data, kfg.OUTPUT: pair, "SCALE": self.log_scale.exp().clamp(max=100)}


@LOSSES_REGISTRY.register()
class Contrastive:
    """Symmetric cross entropy over the similarities within a batch (CLIP, figure 3)."""

    def __init__(self, cfg: Any) -> None:
        pass

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Tensor]:
        names, texts = outputs[kfg.OUTPUT]
        logits = outputs["SCALE"] * names @ texts.t()
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        return {"contrastive_loss": loss}


@EVALUATION_REGISTRY.register()
class RecallAt10:
    """In percent: how often the right name is among the ten nearest of a docstring."""

    def __init__(self, cfg: Any, annfile: str, output_dir: str | None) -> None:
        pass

    def eval(self, names: Tensor, texts: Tensor, labels: np.ndarray) -> dict[str, float]:
        best = (texts @ names.t()).topk(10, dim=1).indices.cpu().numpy()
        return {"recall@10": float(np.take_along_axis(labels, best, 1).any(1).mean() * 100)}


def config(args: Any) -> Any:
    """The default config with this example's settings and the command line's."""
    cfg = get_cfg()
    cfg.OUTPUT_DIR = "work_dirs/retrieval"
    cfg.SEED = 0
    cfg.ENGINE.NAME = "RetrievalTrainer"
    cfg.MODEL.META_ARCHITECTURE = "TwoTowers"
    cfg.DATASETS.update({"TRAIN": "Docstrings", "VAL": "Docstrings"})
    cfg.DATALOADER.update({"TRAIN_BATCH_SIZE": 128, "TEST_BATCH_SIZE": 128, "NUM_WORKERS": 0})
    cfg.SOLVER.update({"NAME": "AdamW", "BASE_LR": 2e-3, "EPOCH": 12, "GRAD_CLIP": 1.0})
    cfg.SOLVER.update({"WEIGHT_DECAY": 0.01, "EVAL_PERIOD": 3, "CHECKPOINT_PERIOD": 3})
    cfg.LR_SCHEDULER.update({"NAME": "WarmupCosine", "WARMUP": 1})
    cfg.LOSSES.NAMES = ["Contrastive"]
    cfg.INFERENCE.NAME = "RecallAt10"
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts or [])
    cfg.freeze()
    return cfg


def main(args: Any) -> float:
    """Train (or resume), and return recall@10 in percent."""
    cfg = config(args)
    default_setup(cfg, args)
    trainer: RetrievalTrainer = build_engine(cfg)
    trainer.resume_or_load(resume=args.resume)
    if not args.eval_only:
        trainer.train()
    found = trainer.test(cfg, trainer.model, trainer.val_data_loader, trainer.val_evaluator, -1)
    recall = float(found["recall@10"])
    print(f"pairs: {len(trainer.train_data_loader.dataset)} trained, {NUM_HELD_OUT} held out")
    print(f"recall@10: {recall:.1f} % (chance {1000 / NUM_HELD_OUT:.1f} %)")
    return recall


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    launch(
        main,
        arguments.num_gpus,
        arguments.num_machines,
        arguments.machine_rank,
        arguments.dist_url,
        args=(arguments,),
    )
