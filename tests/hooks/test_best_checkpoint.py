"""Arguments that choose the best checkpoint; test_checkpoint_hook.py has the errors' texts."""

import pytest
import torch

from fasttrain.hooks.best_checkpoint import (
    best_file_name,
    checked_metrics,
    checked_names,
    checked_published_keys,
    score_of,
    settled_rule,
)


def test_metrics_and_rules() -> None:
    assert checked_metrics(None, "less") == (None, [])
    assert checked_metrics("acc", None) == (["acc"], [None])
    assert checked_metrics(["a", "b"], ["less"]) == (["a", "b"], ["less", "less"])
    assert settled_rule(None, "auto", [], []) is None
    assert settled_rule("less", "acc", ["acc"], []) == "less"
    assert settled_rule(None, "top1_acc", ["acc"], ["loss"]) == "greater"


def test_names_and_keys() -> None:
    assert checked_names(None, ["x"], "greater_keys") == ["x"]
    assert checked_names("acc", ["x"], "greater_keys") == ("acc",)
    assert checked_published_keys(None) is None
    assert checked_published_keys("meta") == ["meta"]
    assert checked_published_keys(("meta", "state_dict")) == ["meta", "state_dict"]


def test_scores() -> None:
    assert score_of({"acc": torch.tensor(0.5)}, "acc") == 0.5
    with pytest.raises(KeyError, match="it gave"):
        score_of({"acc": 1}, "loss")


def test_file_names_keep_what_users_know() -> None:
    assert best_file_name("coco/AP@0.5:0.95", "epoch_3.pth") == "best_coco_AP@0.5:0.95_epoch_3.pth"
