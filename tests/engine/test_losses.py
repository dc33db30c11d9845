"""Losses against their formulas, and the keys they ask for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fasttrain.engine import get_cfg
from fasttrain.engine.data_keys import MissingKeyError
from fasttrain.engine.losses import build_losses


def loss_of(name: str, outputs: dict, **section: object) -> dict[str, torch.Tensor]:
    cfg = get_cfg()
    cfg.LOSSES.NAMES = [name]
    cfg.LOSSES.update(section)
    (loss,) = build_losses(cfg)
    return loss(outputs)


def test_cross_entropy_of_both_streams_ignores_minus_one() -> None:
    torch.manual_seed(0)
    g, u = torch.randn(2, 3, 5), torch.randn(2, 4)
    outputs = {
        "G_LOGITS": g,
        "G_TARGET_IDS": torch.tensor([[1, 2, -1], [0, -1, -1]]),
        "U_LOGITS": u,
        "U_TARGET_IDS": torch.tensor([3, 0]),
    }
    found = loss_of("CrossEntropy", outputs)
    assert list(found) == ["CrossEntropy Loss(G)", "CrossEntropy Loss(U)"]
    kept = F.cross_entropy(torch.stack([g[0, 0], g[0, 1], g[1, 0]]), torch.tensor([1, 2, 0]))
    torch.testing.assert_close(found["CrossEntropy Loss(G)"], kept)
    torch.testing.assert_close(
        found["CrossEntropy Loss(U)"], F.cross_entropy(u, torch.tensor([3, 0]))
    )


def test_label_smoothing_spreads_the_mass() -> None:
    logits, target = torch.randn(2, 4), torch.tensor([1, 2])
    found = loss_of(
        "LabelSmoothing", {"G_LOGITS": logits, "G_TARGET_IDS": target}, LABELSMOOTHING=0.2
    )
    logp = logits.log_softmax(-1)
    expected = -(0.8 * logp[[0, 1], target] + 0.2 * logp.mean(-1)).mean()
    torch.testing.assert_close(found["LabelSmoothing Loss(G)"], expected)


@pytest.mark.parametrize("hardest", [True, False])
def test_triplet_loss_by_hand(hardest: bool) -> None:
    images = torch.eye(2)
    texts = torch.tensor([[0.9, 0.2], [0.8, 1.0]])  # scores: [[.9, .8], [.2, 1.]]
    found = loss_of("BatchTriplet", {"OUTPUT": (images, texts)}, MARGIN=0.2, MAX_VIOLATION=hardest)
    # rows: .2+.8-.9=.1, .2+.2-1<0; columns: .2+.2-.9<0, .2+.8-1=0
    assert float(found["BatchTriplet Loss"]) == pytest.approx(0.1)


def test_reward_criterion_counts_up_to_the_first_end() -> None:
    logp = torch.tensor([[-1.0, -2.0, -4.0], [-1.0, -3.0, -5.0]])
    tokens = torch.tensor([[7, 0, 0], [7, 8, 9]])
    found = loss_of(
        "RewardCriterion",
        {"G_LOGP": logp, "G_SENTS_IDS": tokens, "REWARDS": torch.tensor([1.0, -2.0]).numpy()},
    )
    assert float(found["RewardCriterion"]) == pytest.approx((3.0 * 1 + 9.0 * -2) / 5)
    full = torch.randn(2, 3, 10)
    taken = full.gather(2, tokens[..., None])[..., 0]
    pairs = [loss_of("RewardCriterion", {"G_LOGP": form, "G_SENTS_IDS": tokens, "REWARDS": [1, 1]})
             for form in (full, taken)]  # fmt: skip
    torch.testing.assert_close(pairs[0], pairs[1])


def test_missing_keys_are_named() -> None:
    with pytest.raises(MissingKeyError, match=r"must hold the key 'G_LOGITS', got \['x'\]"):
        loss_of("CrossEntropy", {"x": 1})
    with pytest.raises(MissingKeyError, match="'G_TARGET_IDS'"):
        loss_of("CrossEntropy", {"G_LOGITS": torch.ones(1, 2)})
    with pytest.raises(MissingKeyError, match="'REWARDS'"):
        loss_of("RewardCriterion", {"G_LOGP": 1, "G_SENTS_IDS": 2})
