"""One value among the results."""

from __future__ import annotations

import pytest

from fasttrain.evaluator import get_metric_value


@pytest.mark.parametrize(
    ("indicator", "metrics", "value"),
    [
        ("acc", {"acc": 1}, 1),
        ("acc", {"val/acc": 1, "val/loss": 2}, 1),
        ("acc", {"a/b/acc": 1}, 1),
        ("b/acc", {"a/acc": 1, "b/acc": 2}, 2),
    ],
)
def test_found(indicator: str, metrics: dict, value: int) -> None:
    assert get_metric_value(indicator, metrics) == value


@pytest.mark.parametrize(
    ("indicator", "metrics", "text"),
    [
        ("acc", {"x/loss": 1}, r"acc can not match any metric in \['x/loss'\]"),
        ("b/acc", {"a/b/acc": 1}, r'"b/acc" can not match any metric in'),
        ("acc", {"a/acc": 1, "b/acc": 2}, r"\"acc\" matches multiple metrics \['a/acc', 'b/acc'\]"),
    ],
)
def test_not_found(indicator: str, metrics: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        get_metric_value(indicator, metrics)
