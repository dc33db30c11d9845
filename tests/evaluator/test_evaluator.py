"""Several metrics over the same predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fasttrain.evaluator import BaseMetric, Evaluator
from fasttrain.registry import EVALUATOR, METRICS


class Count(BaseMetric):
    default_prefix = "count"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: list[tuple[Any, Any]] = []

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        self.seen.append((data_batch, list(data_samples)))
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list) -> dict:
        return {"samples": sum(results)}


class Element:
    def to_dict(self) -> dict:
        return {"label": 1}


def test_every_metric_sees_every_batch_with_elements_as_dicts() -> None:
    first, second = Count(), Count(prefix="second")
    evaluator = Evaluator([first, second])
    evaluator.process([Element(), {"label": 2}], data_batch="batch")
    evaluator.process(data_samples=[(3,)])
    expected = [("batch", [{"label": 1}, {"label": 2}]), (None, [(3,)])]
    assert first.seen == second.seen == expected
    assert evaluator.evaluate(3) == {"count/samples": 3, "second/samples": 3}


def test_metrics_of_one_name_are_refused() -> None:
    evaluator = Evaluator([Count(), Count()])
    evaluator.process([1])
    with pytest.raises(ValueError, match="results with the same metric name count/samples"):
        evaluator.evaluate(1)


def test_metrics_are_built_from_configs() -> None:
    METRICS.register_module(name="CountTest", module=Count)
    try:
        evaluator = EVALUATOR.build(
            dict(type="Evaluator", metrics=[dict(type="CountTest"), Count(prefix="b")])
        )
        single = Evaluator(dict(type="CountTest", prefix="x"))
    finally:
        METRICS.module_dict.pop("CountTest")
    assert [metric.prefix for metric in evaluator.metrics] == ["count", "b"]
    assert single.metrics[0].prefix == "x"


def test_the_datasets_story_reaches_every_metric() -> None:
    evaluator = Evaluator([Count(), Count()])
    assert evaluator.dataset_meta is None
    evaluator.dataset_meta = {"classes": ["a"]}
    assert evaluator.dataset_meta == {"classes": ["a"]}
    assert [metric.dataset_meta for metric in evaluator.metrics] == [{"classes": ["a"]}] * 2


def test_offline_evaluation_in_chunks() -> None:
    count = Count()
    evaluator = Evaluator(count)
    assert evaluator.offline_evaluate([1, 2, 3], [4, 5, 6], chunk_size=2) == {"count/samples": 3}
    assert count.seen == [([4, 5], [1, 2]), ([6], [3])]
    count.seen.clear()
    evaluator.offline_evaluate([1, 2], [{"x": 4}, {"x": 5}], chunk_size=2)
    assert count.seen == [({"x": [4, 5]}, [1, 2])]
    assert evaluator.offline_evaluate(iter([1, 2, 3])) == {"count/samples": 3}  # type: ignore
    assert evaluator.offline_evaluate([]) == {"count/samples": 0}
    with pytest.raises(AssertionError, match="length: 3 data length: 1"):
        evaluator.offline_evaluate([1, 2, 3], [1])
