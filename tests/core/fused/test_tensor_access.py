"""The native look into tensors: torch's DLPack functions and its Python methods agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fasttrain import native
from fasttrain.core import fused

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled module is not there")

BASE = torch.randn(6, 8)
TENSORS = {
    "contiguous": torch.randn(3, 5),
    "scalar": torch.randn(()),
    "empty": torch.empty(0, 3),
    "bfloat16": torch.randn(7).bfloat16(),
    "float16": torch.randn(7).half(),
    "float64": torch.randn(7).double(),
    "complex": torch.randn(7, dtype=torch.complex64),
    "integers": torch.arange(4),
    "parameter": nn.Parameter(torch.randn(2, 2)),
    "of a graph": nn.Parameter(torch.randn(2)) * 2,
    "view": BASE[2:, 3:],
    "offset": torch.randn(11)[3:],
    "transposed": BASE.t(),
    "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "single channel": torch.randn(2, 1, 4, 4).to(memory_format=torch.channels_last),
    "expanded": torch.ones(1).expand(5),
    "meta": torch.empty(3, 4, device="meta"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_both_ways_see_the_same(name: str) -> None:
    tensor = TENSORS[name]
    fast, slow = native.tensor_access(), native.tensor_access(exchange=False)
    assert fast.exchanges == hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert not slow.exchanges
    seen = fast.describe(tensor)
    assert seen == slow.describe(tensor)
    address, numel, dtype, contiguous, strides, on_cpu = seen
    assert on_cpu == tensor.is_cpu
    assert (address, numel) == (tensor.data_ptr(), tensor.numel())
    assert contiguous == tensor.is_contiguous()
    assert (dtype is None) == (tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16))
    if not contiguous:
        wide = zip(tensor.shape, tensor.stride(), strict=True)
        assert strides == [stride for size, stride in wide if size != 1]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("exchange", [True, False])
def test_a_tensor_without_memory_raises(exchange: bool) -> None:
    sparse = torch.eye(3).to_sparse()
    with pytest.raises((RuntimeError, NotImplementedError, BufferError)):
        native.tensor_access(exchange).describe(sparse)


class Watched(nn.Parameter):
    """A parameter whose gradient is an attribute of its own."""

    dropped = 0

    @property
    def grad(self):
        return 7

    @grad.setter
    def grad(self, value):
        type(self).dropped += 1


@pytest.mark.parametrize("exchange", [True, False])
def test_gradients_are_read_and_dropped(exchange: bool) -> None:
    access = native.tensor_access(exchange)
    plain, parameter, own = torch.ones(2), nn.Parameter(torch.ones(2)), Watched(torch.ones(2))
    assert access.grad_of(plain) is None
    plain.grad = torch.ones(2)
    parameter.grad = torch.ones(2)
    assert access.grad_of(plain) is plain.grad
    assert access.grad_of(parameter) is parameter.grad
    assert access.grad_of(own) == 7
    before = Watched.dropped
    access.drop_gradients([plain, parameter, own])
    assert plain.grad is None and parameter.grad is None
    assert Watched.dropped == before + 1
    with pytest.raises(AttributeError):
        access.drop_gradients([object()])


def test_steps_by_methods_are_the_same(case, native_path, monkeypatch, make_params, set_grads):
    """What torch versions without the exchange functions take."""
    results = []
    access = native.tensor_access
    for exchange in (True, False):
        monkeypatch.setattr(native, "tensor_access", lambda on=exchange: access(on))
        params = make_params()
        params.append(nn.Parameter(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)))
        optimizer = case.ours(params, **case.kwargs)
        for step in range(2):
            set_grads(params, step)
            params[step].grad = None
            optimizer.step()
            optimizer.zero_grad()
        results.append(params)
    for left, right in zip(*results, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_shrunk_parameter_is_noticed(exchange, native_path, monkeypatch) -> None:
    """The same address with fewer elements: the table must not write past them."""
    access = native.tensor_access
    monkeypatch.setattr(native, "tensor_access", lambda: access(exchange))
    whole = torch.zeros(10)
    param = nn.Parameter(whole)
    optimizer = fused.SGD([param], lr=1.0)
    param.grad = torch.ones(10)
    optimizer.step()
    param.grad = None
    param.data = whole[:4]
    param.grad = torch.ones(4)
    optimizer.step()
    assert whole.tolist() == [-2.0] * 4 + [-1.0] * 6
