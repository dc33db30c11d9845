"""Workers' seeds, and samples joined to batches."""

from __future__ import annotations

import random
import warnings
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.dataset import COLLATE_FUNCTIONS, default_collate, pseudo_collate, worker_init_fn

pair = namedtuple("pair", "left right")
X = torch.ones(2)


class Element:
    """As much of a data element as matters here."""

    def to_dict(self) -> dict:
        return {}


def test_workers_are_seeded_by_their_number() -> None:
    worker_init_fn(2, num_workers=4, rank=3, seed=100)
    assert torch.initial_seed() == 114
    assert random.random() == random.Random(114).random()
    assert np.random.rand() == np.random.RandomState(114).rand()


def test_only_the_first_worker_warns_when_asked() -> None:
    with warnings.catch_warnings():
        worker_init_fn(0, 2, 0, 0, disable_subprocess_warning=True)
        with pytest.warns(UserWarning, match="heard"):
            warnings.warn("heard", stacklevel=1)
        worker_init_fn(1, 2, 0, 0, disable_subprocess_warning=True)
        warnings.warn("not heard", stacklevel=1)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([{"a": 1, "b": "s"}, {"a": 2, "b": "t"}], {"a": [1, 2], "b": ["s", "t"]}),
        ([OrderedDict(a=1)], OrderedDict(a=[1])),
        ([(1, "x"), (2, "y")], [(1, 2), ("x", "y")]),
        ([[1, 2], [3, 4]], [(1, 3), (2, 4)]),
        ([({"a": 1}, 2), ({"a": 3}, 4)], [{"a": [1, 3]}, (2, 4)]),
        ([pair(1, 2), pair(3, 4)], pair((1, 3), (2, 4))),
        ([{"a": {"b": 1}}], {"a": {"b": [1]}}),
        (["a", "b"], ["a", "b"]),
        ([None, None], [None, None]),
        ([[], []], []),
        ([range(2), range(2)], [(0, 0), (1, 1)]),
    ],
)
def test_pseudo_collate_makes_lists(samples: list, expected: Any) -> None:
    batch = pseudo_collate(samples)
    assert batch == expected
    assert type(batch) is type(expected)


def test_pseudo_collate_keeps_tensors_and_elements() -> None:
    element = Element()
    batch = pseudo_collate([{"x": X, "e": element}] * 2)
    assert batch["x"][0] is X
    assert batch["e"] == [element, element]


def test_default_collate_stacks() -> None:
    element = Element()
    samples = [{"x": X, "n": (1, 2.0), "t": "s", "e": element, "a": np.ones(2)}] * 3
    batch = default_collate(samples)
    assert batch["x"].shape == (3, 2)
    assert batch["n"][0].tolist() == [1, 1, 1]
    assert batch["n"][1].dtype == torch.float64
    assert batch["t"] == ["s"] * 3
    assert batch["e"] == [element] * 3
    assert batch["a"].dtype == torch.float64
    assert default_collate([pair(1, 2)]) == pair(torch.tensor([1]), torch.tensor([2]))


@pytest.mark.parametrize("collate", [pseudo_collate, default_collate])
def test_samples_of_unequal_length(collate: Any) -> None:
    with pytest.raises(RuntimeError, match="in list of batch should be of equal size"):
        collate([[1], [1, 2]])


def test_collate_functions_are_registered() -> None:
    assert COLLATE_FUNCTIONS.get("pseudo_collate") is pseudo_collate
    assert COLLATE_FUNCTIONS.get("default_collate") is default_collate
