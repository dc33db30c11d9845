"""Collecting results and computing from them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain.evaluator import BaseMetric, DumpResults, metric
from fasttrain.evaluator.metric import _to_cpu
from fasttrain.registry import METRICS


class Sum(BaseMetric):
    default_prefix = "sum"

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results += data_samples

    def compute_metrics(self, results: list) -> dict:
        return {"all": sum(results), "n": len(results)}


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(metric, "print_log", lambda msg, **kwargs: messages.append(msg))
    return messages


def test_results_are_cut_to_the_dataset_and_start_anew() -> None:
    summed = Sum()
    results = summed.results
    summed.process(None, [1, 2, 3])
    assert summed.evaluate(size=2) == {"sum/all": 3, "sum/n": 2}
    assert summed.results is results
    summed.process(None, [5])
    assert summed.evaluate(size=2) == {"sum/all": 5, "sum/n": 1}


@pytest.mark.parametrize(("prefix", "name"), [(None, "sum/n"), ("", "sum/n"), ("own", "own/n")])
def test_names_carry_the_prefix(prefix: str | None, name: str) -> None:
    assert name in Sum(prefix=prefix).evaluate(0)


def test_without_a_prefix_the_results_stay_as_they_are() -> None:
    class Numbered(Sum):
        default_prefix = None

        def compute_metrics(self, results: list) -> dict:
            return {1: 2}

    assert Numbered().evaluate(0) == {1: 2}


def test_what_is_said(said: list[str]) -> None:
    class Bare(Sum):
        default_prefix = None

    assert Bare().evaluate(0) == {"all": 0, "n": 0}
    assert said[0] == "The prefix is not set in metric class Bare."
    assert said[1].startswith("Bare got empty `self.results`.")


def test_settings() -> None:
    summed = Sum(collect_dir="somewhere")
    assert (summed.collect_device, summed.collect_dir) == ("cpu", "somewhere")
    assert summed.dataset_meta is None
    summed.dataset_meta = {"classes": ["a"]}
    assert summed.dataset_meta == {"classes": ["a"]}
    with pytest.raises(ValueError, match="could only be configured when `collect_device='cpu'`"):
        Sum(collect_device="gpu", collect_dir="somewhere")
    with pytest.raises(NotImplementedError, match=r"device must be .*, but got abacus"):
        Sum(collect_device="abacus").evaluate(0)
    with pytest.raises(TypeError, match="abstract"):
        BaseMetric()  # type: ignore[abstract]


class Element:
    """As much of a data element as matters here."""

    device = "unknown"

    def to_dict(self) -> dict:
        return {}

    def to(self, device: str) -> Element:
        self.device = device
        return self


def test_to_cpu_reaches_into_containers() -> None:
    moved = _to_cpu({"a": [torch.ones(1)], "b": (Element(), "text")})
    assert moved["a"][0].tolist() == [1.0]
    assert moved["b"][0].device == "cpu"
    assert moved["b"][1] == "text"


def test_dumped_results_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.pkl"
    dump = METRICS.build(dict(type="DumpResults", out_file_path=str(path)))
    dump.process(None, [{"a": torch.ones(2)}])
    dump.process(None, [{"a": torch.zeros(2)}])
    assert dump.evaluate(2) == {}
    loaded = pickle.loads(path.read_bytes())
    assert [item["a"].tolist() for item in loaded] == [[1.0, 1.0], [0.0, 0.0]]
    dump.process(None, [{"a": lambda: None}])
    with pytest.raises((pickle.PicklingError, AttributeError)):
        dump.evaluate(1)
    assert len(pickle.loads(path.read_bytes())) == 2  # the old file is still whole
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="The output file must be a pkl file"):
        DumpResults("results.json")
