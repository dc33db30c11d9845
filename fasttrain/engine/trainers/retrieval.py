"""RetrievalTrainer: two embeddings per batch, rated by who finds whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from fasttrain.engine import data_keys as kfg
from fasttrain.engine.default_trainer import DefaultTrainer
from fasttrain.engine.model_modes import evaluating
from fasttrain.engine.registries import ENGINE_REGISTRY


@ENGINE_REGISTRY.register()
class RetrievalTrainer(DefaultTrainer):
    """DefaultTrainer whose test compares images with texts.

    The model returns `OUTPUT`: image embeddings [B, D] and text embeddings [C, D]; and `IDS`: per
    image its id and the list of the ids of its texts.
    """

    @classmethod
    def test(
        cls, cfg: Any, model: nn.Module, test_data_loader: Iterable[Any], evaluator: Any, epoch: int
    ) -> Any:
        """What `evaluator.eval(v, t, labels)` returns; labels[text, image] is 1 for a match.

        Raises:
            ValueError: there is no evaluator.
        """
        if evaluator is None:
            raise ValueError("RetrievalTrainer needs an evaluator to test: set INFERENCE.NAME")
        images, texts, owners, image_ids = [], [], [], []
        with evaluating(model) as bare:
            for batch in test_data_loader:
                outputs = bare(bare.preprocess_batch(batch))
                ids, pair = kfg.need(outputs, "the model's outputs", kfg.IDS, kfg.OUTPUT)
                images.append(pair[0])
                texts.append(pair[1])
                for image_id, text_ids in ids:
                    image_ids.append(int(image_id))
                    owners += [int(image_id)] * len(text_ids)
        labels = (np.asarray(owners)[:, None] == np.asarray(image_ids)[None, :]).astype(np.int64)
        return evaluator.eval(torch.cat(images), torch.cat(texts), labels)
