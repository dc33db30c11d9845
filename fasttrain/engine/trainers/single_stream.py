"""Single-stream retrieval: a joint model scores every pair of text and image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasttrain.engine import comm, loaders
from fasttrain.engine import data_keys as kfg
from fasttrain.engine.default_trainer import DefaultTrainer
from fasttrain.engine.model_modes import evaluating
from fasttrain.engine.registries import ENGINE_REGISTRY

PAIRS_AT_ONCE = 1024


def recalls(scores: np.ndarray, matches: np.ndarray) -> dict[str, float]:
    """R@1, R@5 and R@10 of finding the image of a text, in percent, and their mean.

    Args:
        scores: [texts, images].
        matches: [texts], index of the right image.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = (order == matches[:, None]).argmax(1)
    found = {f"img_r{k}": float((ranks < k).mean() * 100) for k in (1, 5, 10)}
    return {**found, "img_r_mean": sum(found.values()) / len(found)}


@ENGINE_REGISTRY.register()
class SingleStreamRetrievalTrainer(DefaultTrainer):
    """DefaultTrainer whose test scores all images for each text, in chunks, on every process.

    The test loader yields one text per batch, as `[[chunk, ...]]`: each chunk is what
    `preprocess_batch` takes and holds the text with some images, in order. Its dataset has
    `total_img_num`, and every chunk `matched_imgfeatidx`, the index of the right image. The model
    returns `OUTPUT` [n, 1], the score of each of the chunk's n images.
    """

    multi_gpu_eval = True

    @classmethod
    def build_loader(cls, cfg: Any, name: str, stage: str) -> Any:
        """Texts to test with come one by one, a share of them for each process."""
        return loaders.build_loader(cfg, name, stage, one_by_one=True)

    @classmethod
    def test(
        cls, cfg: Any, model: nn.Module, test_data_loader: Iterable[Any], evaluator: Any, epoch: int
    ) -> dict[str, float]:
        """`img_r1`, `img_r5`, `img_r10`, `img_r_mean`, over the texts of all processes.

        Raises:
            MissingKeyError: a chunk lacks `matched_imgfeatidx`, or the outputs `OUTPUT`.
            ValueError: the chunks of a text do not add up to all images.
        """
        total = int(test_data_loader.dataset.total_img_num)  # type: ignore[attr-defined]
        rows, matches = [], []
        with evaluating(model) as bare:
            for (chunks,) in test_data_loader:
                scores = [score_of(bare, bare.preprocess_batch([chunk])) for chunk in chunks]
                row = torch.cat(scores).float().cpu().numpy()  # sync point
                if len(row) != total:
                    raise ValueError(f"a text was scored with {len(row)} images, expected {total}")
                rows.append(row)
                (match,) = kfg.need(chunks[0], "a chunk", "matched_imgfeatidx")
                matches.append(int(match))
        gathered = comm.all_gather((rows, matches))
        all_rows = np.concatenate([np.stack(part) for part, _ in gathered if part])
        all_matches = np.concatenate([np.asarray(part) for _, part in gathered if part])
        return recalls(all_rows, all_matches)


def score_of(model: Any, data: dict[str, Any]) -> Tensor:
    """The scores [n] of a batch of pairs."""
    (output,) = kfg.need(model(data), "the model's outputs", kfg.OUTPUT)
    return output.reshape(len(output), -1)[:, -1]


@ENGINE_REGISTRY.register()
class SingleStreamRetrievalTrainerHardNegatives(SingleStreamRetrievalTrainer):
    """Adds to every image the texts of the batch that the model confuses most with its own.

    The batch holds `ATT_FEATS`, `ATT_FEATS_LOC`, `ATT_MASKS` [B, N, ...] and `U_TOKENS_IDS`,
    `U_TOKENS_TYPE`, `TOKENS_MASKS` [B, T]; a row of each belongs together. A training step sees
    every image with its own text and `DATALOADER.NEGATIVE_SIZE` others.
    """

    IMAGE_KEYS = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS)
    TEXT_KEYS = (kfg.U_TOKENS_IDS, kfg.U_TOKENS_TYPE, kfg.TOKENS_MASKS)

    def __init__(self, cfg: Any) -> None:
        if cfg.DATALOADER.NEGATIVE_SIZE < 1:
            raise ValueError(
                f"DATALOADER.NEGATIVE_SIZE must be >= 1, got {cfg.DATALOADER.NEGATIVE_SIZE}"
            )
        super().__init__(cfg)

    def prepare(self, batch: Any) -> dict[str, Any]:
        return self.hard_negative_mining(self.clip_inputs(super().prepare(batch)))

    def clip_inputs(self, data: dict[str, Any]) -> dict[str, Any]:
        """Cut the padding that no sample of the batch needs off images and texts (sync point)."""
        kfg.need(data, "the batch", *self.IMAGE_KEYS, *self.TEXT_KEYS)
        clipped = dict(data)
        for keys, mask_key in (
            (self.IMAGE_KEYS, kfg.ATT_MASKS),
            (self.TEXT_KEYS, kfg.TOKENS_MASKS),
        ):
            used = (data[mask_key] != 0).any(0).nonzero()
            length = int(used.max()) + 1 if len(used) else 1
            clipped.update({key: data[key][:, :length] for key in keys})
        return clipped

    def hard_negative_mining(self, data: dict[str, Any]) -> dict[str, Any]:
        """Every image with its own text first and then the k that score highest among the others.

        Returns:
            a batch of B * (1 + k) pairs, and `SAMPLE_PER_SAMPLE` = 1 + k.
        Raises:
            ValueError: the batch has no k other texts.
        """
        batch = len(data[kfg.ATT_FEATS])
        negatives = self.cfg.DATALOADER.NEGATIVE_SIZE
        if negatives >= batch:
            raise ValueError(
                f"{negatives} hard negatives need a batch of more than {negatives}, got {batch}"
            )
        scores = self._score_all(data, batch)
        scores.fill_diagonal_(-torch.inf)
        hardest = scores.topk(negatives, dim=1).indices
        own = torch.arange(batch, device=scores.device)
        texts = torch.cat([own[:, None], hardest], 1).reshape(-1)
        images = own.repeat_interleave(1 + negatives)
        mined = {**data, **self._pick(data, images, texts), kfg.SAMPLE_PER_SAMPLE: 1 + negatives}
        if kfg.IDS in data:
            mined[kfg.IDS] = [data[kfg.IDS][i] for i in images.tolist()]
        return mined

    def _pick(self, data: dict[str, Any], images: Tensor, texts: Tensor) -> dict[str, Any]:
        return {key: data[key][images] for key in self.IMAGE_KEYS} | {
            key: data[key][texts] for key in self.TEXT_KEYS
        }

    def _score_all(self, data: dict[str, Any], batch: int) -> Tensor:
        """Scores [image, text] of all pairs, some at a time."""
        pairs = torch.arange(batch * batch, device=data[kfg.ATT_FEATS].device)
        with evaluating(self.model) as bare:
            parts = [
                score_of(bare, {**data, **self._pick(data, part // batch, part % batch)})
                for part in pairs.split(PAIRS_AT_ONCE)
            ]
        return torch.cat(parts).float().reshape(batch, batch)
