import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from fasttrain import native
from fasttrain.core import gather
from fasttrain.core.gather import Gatherer, Row, stack
from fasttrain.core.store import ScalarStore
from fasttrain.core.transfer import TorchReader
from slow_device import SlowReader
from support import assert_same

needs_native = pytest.mark.skipif(not native.enabled(), reason="the compiled module is not in use")
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
]  # fmt: skip
NUMBERS: dict[str, list[float]] = {
    "float": [0.0, -0.0, 1.5, -3.25e-5, 65504.0, float("inf"), float("-inf"), float("nan")],
    "signed": [0, 1, -1, 127, -128],
    "unsigned": [0, 1, 255],
    "bool": [True, False],
}


def numbers_of(dtype: torch.dtype) -> list[float]:
    kind = "float" if dtype.is_floating_point else "bool" if dtype == torch.bool else "signed"
    return NUMBERS["unsigned" if str(dtype).startswith("torch.uint") else kind]


def shown(row: Row | None, size: int) -> Tensor:
    assert row is not None
    return row.data[row.start : row.start + size]


@pytest.fixture(params=["exchange", "methods"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways into a tensor: those of torch >= 2.10, and those of before."""
    module = native.module()
    types = {getattr(torch, name): code for code, name in enumerate(module.SCALAR_TYPES)}
    made = module.Gatherer(Tensor, types, request.param == "exchange")
    if request.param == "exchange" and not made.exchanges:
        pytest.skip("this torch hands out no exchange functions")
    monkeypatch.setattr(gather, "_compiled", lambda: made)
    return request.param


def test_all_types_of_torch_are_known() -> None:
    if native.enabled():
        assert [getattr(torch, name) for name in native.module().SCALAR_TYPES] == DTYPES


def mixed(device: str) -> tuple[list[Tensor], list[float], list[bool]]:
    """Scalars of all types and shapes, their numbers, and whether they are whole."""
    tensors, expected, whole = [], [], []
    for dtype in DTYPES:
        for index, number in enumerate(numbers_of(dtype)):
            tensor = torch.tensor(number, dtype=dtype, device=device)
            tensors.append(tensor.reshape([(), (1,), (1, 1)][index % 3]))
            expected.append(float(tensor.item()))
            whole.append(not dtype.is_floating_point)
    return tensors, expected, whole


@needs_native
def test_every_type_in_one_row(way: str) -> None:
    tensors, expected, whole = mixed("cpu")
    row = Gatherer().take(tensors)
    assert_same(shown(row, len(tensors)), torch.tensor(expected, dtype=torch.float64))
    assert row is not None and list(row.whole) == whole


@needs_native
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_every_half_is_exact(way: str, half: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(half)
    gatherer = Gatherer()
    for part in every.split(4096):
        row = gatherer.take(list(part.unbind()))
        assert_same(shown(row, len(part)), part.double())


@needs_native
def test_views_and_gradients_are_read(way: str) -> None:
    base = torch.arange(12.0).view(3, 4)
    leaf = torch.tensor(2.5, requires_grad=True)
    tensors = [base[1, 2], base.t()[3, 1:2], leaf, leaf * 2, torch.tensor([1 + 2j]).imag[0]]
    assert shown(Gatherer().take(tensors), 5).tolist() == [6.0, 7.0, 2.5, 5.0, 2.0]


@needs_native
def test_a_negated_view_is_not_misread(way: str) -> None:
    negated = torch.tensor([1 + 2j, 3 + 4j]).conj().imag  # its memory holds +2 and +4
    assert negated.is_neg() and Gatherer().take([negated[1]]) is None
    store = ScalarStore(reader=SlowReader())
    store.put_many({"a": negated[1], "b": torch.tensor(1.0)})
    assert store.series("a").values().tolist() == [-4.0]


class Sub(Tensor):
    """A tensor of another class may keep its number elsewhere."""


@needs_native
@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(2), torch.zeros(0), torch.zeros(1, 2), torch.tensor(1j), 1.0, None,
        torch.zeros((), device="meta"), torch.zeros(1).to_sparse(),
        torch.zeros(()).as_subclass(Sub), torch.nn.Parameter(torch.zeros(())),
    ],
    ids=lambda odd: f"{type(odd).__name__}",
)  # fmt: skip
def test_what_is_no_plain_scalar_is_left(way: str, odd: Any) -> None:
    gatherer = Gatherer()
    assert gatherer.take([torch.tensor(1.0), odd, torch.tensor(2.0)]) is None
    assert shown(gatherer.take([torch.tensor(3.0)]), 1).tolist() == [3.0]


@needs_native
@pytest.mark.parametrize("size", [1, 48, 49, 448, 449, 1000, 9000])
def test_many_scalars_and_new_chunks(size: int) -> None:
    gatherer, kept = Gatherer(), []
    for step in range(3):
        row = gatherer.take(list((torch.arange(size) * 3 + step).unbind()))
        assert row is not None
        kept.append((row, size))
    expected = [float(3 * i + step) for step in range(3) for i in range(size)]
    assert torch.cat(gatherer.hand_over(kept)).tolist() == expected


@needs_native
def test_rows_behind_each_other_are_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "CHUNK", 10)
    gatherer = Gatherer()
    rows = [gatherer.take([torch.tensor(i), torch.tensor(0.5)]) for i in range(8)]
    spans = gatherer.hand_over((row, 2) for row in rows if row is not None)
    assert [len(span) for span in spans] == [10, 6]
    assert gatherer.hand_over([]) == []


def test_stacking_takes_one_type() -> None:
    row = stack([torch.tensor([1]), torch.tensor([2])])
    assert shown(row, 2).tolist() == [1, 2] and row is not None and row.whole == b"\1\1"
    row = stack([torch.tensor(1.5), torch.tensor(2.5)])
    assert shown(row, 2).tolist() == [1.5, 2.5] and row is not None and not any(row.whole)
    assert stack([torch.tensor(1), torch.tensor(0.5)]) is None
    assert stack([torch.tensor(1j)]) is None
    assert stack([torch.zeros(2), torch.zeros(2)]) is None


@pytest.mark.parametrize("switch", ["1", "0"])
def test_a_store_shows_mixed_types(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv("FASTTRAIN_NATIVE", switch)
    store = ScalarStore(reader=SlowReader())
    tensors, expected, whole = mixed("cpu")
    scalars = {str(index): tensor for index, tensor in enumerate(tensors)}
    for _ in range(2):
        store.put_many(scalars, "train/")
    for (name, number), is_whole in zip(zip(scalars, expected, strict=True), whole, strict=True):
        series = store.series(f"train/{name}")
        assert str(series.values().tolist()) == str([number] * 2)
        assert series.ring.integral == is_whole


# --- on a GPU --------------------------------------------------------------------------------
def gpu(*, count: int = 1) -> Any:
    def mark(test: Any) -> Any:
        usable = native.cuda_usable() and torch.cuda.device_count() >= count
        skip = pytest.mark.skipif(not usable, reason=f"needs the CUDA backend and {count} GPU(s)")
        quiet = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
        return pytest.mark.gpu(quiet(skip(test)))

    return mark


@gpu()
def test_a_gpu_reads_what_the_host_reads(way: str) -> None:
    tensors, expected, whole = mixed("cuda")
    row = Gatherer().take(tensors)
    assert row is not None and row.data.is_cuda and list(row.whole) == whole
    assert_same(shown(row, len(tensors)).cpu(), torch.tensor(expected, dtype=torch.float64))


@gpu()
@pytest.mark.parametrize("size", [1, 48, 49, 448, 1000])
def test_a_gpu_takes_many(size: int) -> None:
    row = Gatherer().take(list(torch.arange(size, device="cuda").unbind()))
    assert shown(row, size).tolist() == list(map(float, range(size)))


@gpu()
def test_a_gpu_is_not_waited_for() -> None:
    store = ScalarStore()
    value = torch.ones((), device="cuda")
    store.put_many({"a": value, "b": value.half(), "c": value.int()})  # loads the kernels
    store.flush()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(50):
            store.put_many({"a": value * step, "b": value.half(), "c": (value * step).int()})
            if step % 10 == 9:
                flush = store.begin_flush()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    flush.finish()
    assert store.series("a").values().tolist() == [1.0, *map(float, range(50))]
    assert store.series("c").values().tolist() == [1, *range(50)]
    assert store.series("c").ring.integral and not store.series("b").ring.integral


@gpu()
@pytest.mark.filterwarnings("ignore")  # whatever the profiler says of itself
def test_one_launch_per_call() -> None:
    store = ScalarStore()
    scalars = {str(i): torch.tensor(i, dtype=d, device="cuda") for i, d in enumerate(DTYPES)}
    store.put_many(scalars)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        store.put_many(scalars)
        torch.cuda.synchronize()
    kernels = [
        event
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and "Sync" not in event.name
    ]
    if not kernels:
        pytest.skip("the profiler sees no kernels here")
    assert len(kernels) == 1 and "gather" in kernels[0].name
    store.flush()


@gpu()
def test_streams_of_a_gpu_do_not_mix() -> None:
    store, side = ScalarStore(), torch.cuda.Stream()
    slow = torch.ones(4096, 4096, device="cuda")
    for step in range(5):
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            product = slow
            for _ in range(5):
                product = product @ slow / 4096
            store.put_many({"side": product.mean() + step})
        store.put_many({"main": torch.tensor(float(step), device="cuda")})
    flush = store.begin_flush()  # on the main stream, while the other still works
    flush.finish()
    assert store.series("main").values().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert store.series("side").values().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


@gpu()
def test_a_graph_is_no_place_for_records() -> None:
    store, graph = ScalarStore(), torch.cuda.CUDAGraph()
    value = torch.ones((), device="cuda")
    store.put_many({"loss": value})
    with torch.cuda.graph(graph):
        output = value * 2
        with pytest.raises(RuntimeError, match="record the graph's outputs after each replay"):
            store.put_many({"loss": output})
    for _ in range(3):
        graph.replay()
        store.put_many({"loss": output})
        value += 1
    assert store.series("loss").values().tolist() == [1.0, 2.0, 4.0, 6.0]


@gpu()
def test_memory_may_be_reused_at_once() -> None:
    store = ScalarStore()
    for step in range(2000):  # each loss is freed while its launch may still wait
        store.put_many(
            {"a": torch.full((), step, device="cuda"), "b": torch.full((1,), -step, device="cuda")}
        )
    assert store.series("a").values().tolist() == list(map(float, range(2000)))
    assert store.series("b").values().tolist() == [-float(step) for step in range(2000)]


@gpu(count=2)
def test_each_gpu_has_its_rows() -> None:
    store = ScalarStore()
    for step in range(20):
        store.put_many({str(i): torch.tensor(step + i, device=f"cuda:{i}") for i in range(2)})
    for i in range(2):
        assert store.series(str(i)).values().tolist() == [float(step + i) for step in range(20)]


@gpu()
def test_threads_share_a_gpu() -> None:
    store = ScalarStore()

    def work(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for step in range(200):
                store.put_many({f"own{number}": torch.full((), step, device="cuda")})
                if step % 50 == number:
                    store.begin_flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert store.series(f"own{number}").values().tolist() == list(map(float, range(200)))
    assert isinstance(store._queue.reader, TorchReader)
