"""Files of every kind of tensor open with plain `torch.load(weights_only=True)`, sharing kept."""

import os
import zipfile

import pytest
import torch

from fasttrain import native
from fasttrain.core.checkpoint import damage, load, save
from support import assert_same

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
    torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@pytest.fixture(autouse=True, params=["native", "fallback"])
def path_of_code(request, monkeypatch):
    if request.param == "fallback":
        monkeypatch.setenv("FASTTRAIN_NATIVE", "0")
    elif not native.enabled():
        pytest.skip("the native module is not built")
    return request.param


def round_trip(state, path, **kwargs):
    save(state, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert damage(path) is None
    return torch.load(path, weights_only=True, **kwargs)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(tmp_path, dtype, mmap):
    tensor = torch.randint(0, 2, (7, 3)).to(dtype)
    loaded = round_trip(
        {"t": tensor, "e": tensor[:0], "s": tensor[0, 0]}, tmp_path / "a", mmap=mmap
    )
    for name, source in (("t", tensor), ("e", tensor[:0]), ("s", tensor[0, 0])):
        assert loaded[name].dtype == dtype
        assert torch.equal(
            loaded[name].contiguous().view(torch.uint8) if source.ndim else loaded[name],
            source.contiguous().view(torch.uint8) if source.ndim else source,
        )


def test_views_and_shared_storages_stay_views(tmp_path):
    base = torch.arange(12.0)
    state = {"base": base, "part": base[2:5], "step": base[::3], "turned": base.view(3, 4).t()}
    loaded = round_trip(state, tmp_path / "a.pth")
    assert_same(loaded, state)
    loaded["base"][3] = -1
    assert loaded["part"][1] == -1
    assert loaded["step"][1] == -1
    assert loaded["turned"].stride() == (1, 4)
    assert os.path.getsize(tmp_path / "a.pth") < 4096


def test_one_storage_seen_as_two_dtypes(tmp_path):
    base = torch.arange(4.0)
    loaded = round_trip({"f": base, "i": base.view(torch.int32)}, tmp_path / "a.pth")
    assert_same(loaded["f"], base)
    assert_same(loaded["i"], base.view(torch.int32))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_other_layouts(tmp_path):
    state = {
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "grad": torch.ones(2, requires_grad=True),
    }
    loaded = round_trip(state, tmp_path / "a.pth")
    assert torch.equal(loaded["sparse"].to_dense(), torch.eye(3))
    assert torch.equal(loaded["csr"].to_dense(), torch.eye(3))
    assert torch.equal(loaded["conjugate"], torch.tensor([1 - 2j]))
    for name in ("parameter", "frozen", "grad"):
        assert type(loaded[name]) is type(state[name])
        assert loaded[name].requires_grad == state[name].requires_grad


@pytest.mark.filterwarnings("ignore:.*uantiz", "ignore:TypedStorage")
def test_quantized_tensors(tmp_path):
    values = torch.tensor([[0.1, 0.2], [0.3, -0.4]])
    state = {
        str(dtype): torch.quantize_per_tensor(values, 0.1, 3, dtype)
        for dtype in (torch.quint8, torch.qint8, torch.qint32)
    }
    scales, zeros = torch.tensor([0.1, 0.2]), torch.tensor([0, 1])
    state["channels"] = torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)
    loaded = round_trip(state, tmp_path / "a.pth")
    for name, source in state.items():
        assert loaded[name].dtype == source.dtype
        assert torch.equal(loaded[name].int_repr(), source.int_repr())
        assert torch.equal(loaded[name].dequantize(), source.dequantize())


class Labelled(torch.Tensor):
    pass


class Wraps(torch.Tensor):
    """A tensor without data of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, kinds, args=(), kwargs=None):
        return args[0]


def test_subclasses_become_plain_tensors(tmp_path):
    loaded = round_trip({"t": torch.arange(3.0).as_subclass(Labelled)}, tmp_path / "a.pth")
    assert type(loaded["t"]) is torch.Tensor
    assert_same(loaded["t"], torch.arange(3.0))


def test_tensors_that_wrap_others_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"\['x'\]\[0\] holds a tensor of type Wraps, which has no"):
        save({"x": [Wraps(torch.ones(2))]}, tmp_path / "a.pth")
    assert os.listdir(tmp_path) == []


def test_tied_weights_and_ten_thousand_tensors(tmp_path):
    layer = torch.nn.Linear(3, 3)
    state = {
        "tied": torch.nn.Sequential(layer, layer).state_dict(),
        "many": {f"weight_{i}": torch.full((i % 3,), float(i)) for i in range(10_000)},
        "ключ é 😀": torch.ones(2),
    }
    loaded = round_trip(state, tmp_path / "größe 😀.pth")
    assert_same(loaded, state)
    tied = loaded["tied"]
    assert tied["0.weight"].data_ptr() == tied["1.weight"].data_ptr()


def test_a_view_brings_its_whole_storage_as_torchs_does(tmp_path):
    save({"part": torch.zeros(100_000)[:3]}, tmp_path / "a.pth")
    torch.save({"part": torch.zeros(100_000)[:3]}, tmp_path / "archive")
    sizes = [os.path.getsize(tmp_path / name) for name in ("a.pth", "archive")]
    assert sizes[0] == sizes[1] > 400_000


def test_module_and_optimizer_states(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    loaded = round_trip(state, tmp_path / "a.pth")
    assert_same(loaded, state)
    assert loaded["model"]._metadata == state["model"]._metadata
    assert_same(load(tmp_path / "a.pth"), state)


def test_tensors_without_data_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint\['t'\] holds a tensor on the meta device"):
        save({"t": torch.ones(2, device="meta")}, tmp_path / "a.pth")
    assert os.listdir(tmp_path) == []


def test_the_file_is_byte_for_byte_torchs_own(tmp_path):
    torch.manual_seed(0)
    sizes = [0, 1, 63, 64, 65, 1000, 300_000, 1_048_576, 1_048_577]
    state = {f"w{size}": torch.randint(0, 255, (size,)).to(torch.uint8) for size in sizes}
    state["weights"] = torch.nn.Linear(3, 4).state_dict()
    save(state, tmp_path / "ours.pth")
    torch.save(state, tmp_path / "archive")
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("ours.pth", "archive"))
    assert len(ours) == len(theirs)
    identity = theirs.index(b"archive/.data/serialization_id")  # its 40 digits and checksums differ
    assert ours[:identity] == theirs[:identity]


def test_offsets_computed_instead_of_looked_up(tmp_path):
    config = pytest.importorskip("torch.utils.serialization.config")
    if not hasattr(config.load, "calculate_storage_offsets"):
        pytest.skip("this torch looks all offsets up")
    state = {"a": torch.randn(1001), "b": torch.zeros(0), "c": torch.randn(77).double()}
    save(state, tmp_path / "a.pth")
    with config.patch({"load.calculate_storage_offsets": True}):
        for mmap in (False, True):
            assert_same(torch.load(tmp_path / "a.pth", weights_only=True, mmap=mmap), state)


@pytest.mark.slow
def test_files_over_4_gib(tmp_path, path_of_code):
    if path_of_code == "fallback":
        pytest.skip("torch's own writer")
    state = {
        "small": torch.ones(3),
        "large": torch.empty(2**32 + 100, dtype=torch.uint8),
        "after": torch.arange(5.0),
        "empty": torch.zeros(0),
    }
    state["large"][-1] = 7
    loaded = round_trip(state, tmp_path / "a.pth", mmap=True)
    for name in ("small", "after", "empty"):
        assert torch.equal(loaded[name], state[name])
    assert loaded["large"][-1] == 7
