"""Batches of unequal tensors, batch norms, unused parameters."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from fasttrain.model import (
    convert_sync_batchnorm,
    detect_anomalous_params,
    merge_dict,
    revert_sync_batchnorm,
    stack_batch,
    utils,
)


def test_equal_tensors_are_stacked() -> None:
    tensors = [torch.rand(3, 4), torch.rand(3, 4)]
    assert torch.equal(stack_batch(tensors), torch.stack(tensors))
    assert torch.equal(stack_batch([torch.ones(2)]), torch.ones(1, 2))


def test_unequal_tensors_are_padded_at_their_ends() -> None:
    small, wide = torch.ones(2, 1, 2), torch.full((2, 3, 1), 2.0)
    batch = stack_batch([small, wide], pad_size_divisor=2, pad_value=9)
    expected = torch.full((2, 2, 4, 2), 9.0)
    expected[0, :, :1, :2] = 1
    expected[1, :, :3, :1] = 2
    assert torch.equal(batch, expected)
    assert stack_batch([torch.ones(1, 5, dtype=torch.uint8)], 4).dtype == torch.uint8


def test_gradients_pass_through_padding() -> None:
    leaf = torch.ones(1, 2, requires_grad=True)
    stack_batch([leaf, torch.ones(1, 3)]).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [[1.0, 1.0]]


def test_what_cannot_be_stacked() -> None:
    with pytest.raises(
        AssertionError, match="Expected input type to be list, but got <class 'tuple'>"
    ):
        stack_batch((torch.ones(1),))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="could not be an empty list"):
        stack_batch([])
    with pytest.raises(AssertionError, match=r"must be the same, but got \[1, 2\]"):
        stack_batch([torch.ones(1), torch.ones(1, 1)])
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        stack_batch([torch.ones(1, 2), torch.ones(2, 3)])


def test_merge_dict() -> None:
    first = {"a": 1}
    assert merge_dict(first, {"b": 2}, {"a": 3}) == {"a": 3, "b": 2}
    assert first == {"a": 1}
    with pytest.raises(AssertionError, match="should be a dict, but got <class 'int'>"):
        merge_dict({}, 1)


def test_unused_parameters_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(
        utils, "print_log", lambda msg, logger=None, level=0: said.append((msg, level))
    )
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 2), nn.Linear(1, 1))
    model[2].requires_grad_(False)
    detect_anomalous_params(model[0](torch.ones(1, 1)).sum(), model)
    assert [level for _, level in said] == [logging.ERROR] * 2
    assert said[0][0].startswith("1.weight with shape torch.Size([2, 1]) is not in the computat")
    assert said[1][0].startswith("1.bias")


def test_sync_batch_norm_and_back() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Sequential(nn.BatchNorm1d(2, eps=0.1)))
    model(torch.rand(4, 1, 3))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model.eval()(torch.ones(2, 1, 3))
    synced = convert_sync_batchnorm(model)
    assert isinstance(synced[1][0], nn.SyncBatchNorm)
    reverted = revert_sync_batchnorm(synced)
    assert type(reverted[1][0]) is utils._BatchNormXd
    assert (reverted[1][0].eps, reverted[1][0].training) == (0.1, False)
    assert all(torch.equal(value, state[name]) for name, value in reverted.state_dict().items())
    assert torch.equal(reverted(torch.ones(2, 1, 3)), expected)
    alone = revert_sync_batchnorm(nn.SyncBatchNorm(3, affine=False))
    assert type(alone) is utils._BatchNormXd
    assert alone(torch.ones(2, 3, 1, 1, 1)).shape == (2, 3, 1, 1, 1)


def test_unknown_kind_of_sync_batch_norm() -> None:
    with pytest.raises(ValueError, match='should be "torch" or "mmcv", but got apex'):
        convert_sync_batchnorm(nn.Identity(), "apex")
