"""Which device a process computes on."""

import sys
import types

import pytest
import torch

from fasttrain import device
from fasttrain.device import utils

KINDS = ("npu", "mlu", "musa")


def test_what_is_not_installed_is_not_available():
    for name in KINDS:
        assert getattr(device, f"is_{name}_available")() is False
    assert not device.is_dipu_available() and not device.is_npu_support_full_precision()
    assert device.is_mps_available() is torch.backends.mps.is_available()
    assert device.is_cuda_available() is torch.cuda.is_available()


def test_get_device(monkeypatch):
    for kind in (*KINDS, "cuda", "mps"):
        monkeypatch.setattr(utils, f"is_{kind}_available", lambda: False)
    assert device.get_device() == "cpu"
    for kind in ("mps", "musa", "mlu", "cuda", "npu"):  # in rising order of preference
        monkeypatch.setattr(utils, f"is_{kind}_available", lambda: True)
        assert device.get_device() == kind


@pytest.mark.parametrize("found", [True, False])
def test_a_backend_is_asked(monkeypatch, found):
    package = types.ModuleType("torch_mlu")
    package.__spec__ = object()
    monkeypatch.setitem(sys.modules, "torch_mlu", package)
    backend = types.SimpleNamespace(is_available=lambda: found)
    assert not device.is_mlu_available()  # the package did not add its backend to torch
    monkeypatch.setattr(torch, "mlu", backend, raising=False)
    assert device.is_mlu_available() is found


def test_max_memory(monkeypatch):
    calls = []
    backend = types.SimpleNamespace(
        max_memory_allocated=lambda device: calls.append(device) or 3 * 1024 * 1024 + 5,
        reset_peak_memory_stats=lambda: calls.append("reset"),
    )
    monkeypatch.setattr(torch, "musa", backend, raising=False)
    assert device.get_max_musa_memory(torch.device("cpu")) == 3
    assert calls == [torch.device("cpu"), "reset"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_max_cuda_memory():
    device.get_max_cuda_memory()
    tensor = torch.zeros(2 * 1024 * 1024, dtype=torch.float32, device="cuda")
    assert device.get_max_cuda_memory() >= 8 and device.get_device() == "cuda"
    del tensor
