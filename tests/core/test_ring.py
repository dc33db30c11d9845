import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain import native
from fasttrain.core.ring import (
    ArrayRing,
    choose_put_scalars,
    make_ring,
    read_scalar,
    require_scalar,
)


@pytest.fixture(params=["compiled", "arrays"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations, through the switch that users have."""
    monkeypatch.setenv("FASTTRAIN_NATIVE", "1" if request.param == "compiled" else "0")
    if request.param == "compiled" and not native.available():
        pytest.skip("the compiled module is not built")
    return request.param


def shown(ring, size: int) -> tuple[list[float], list[float]]:
    values, counts = ring.window(size)
    return np.frombuffer(values).tolist(), np.frombuffer(counts).tolist()


def test_the_switch_chooses(kind: str) -> None:
    assert isinstance(make_ring(3), ArrayRing) == (kind == "arrays")


def test_keeps_the_last_pairs(kind: str) -> None:
    ring = make_ring(3)
    for number in range(5):
        ring.append(number * 0.5, number + 1)
        assert len(ring) == min(number + 1, 3)
        assert ring.last() == number * 0.5
    assert ring.total == 5
    assert shown(ring, 2) == ([1.5, 2.0], [4.0, 5.0])
    assert shown(ring, 100) == ([1.0, 1.5, 2.0], [3.0, 4.0, 5.0])
    assert shown(ring, 0) == ([], [])
    assert ring.sums(2) == (3.5, 9.0)


def test_random_use_equals_a_list(kind: str) -> None:
    rng = np.random.default_rng(0)
    for max_length in (1, 2, 63, 64, 65, 200):
        ring = make_ring(max_length)
        expected: list[tuple[float, float]] = []
        for _ in range(40):
            added = rng.standard_normal((int(rng.integers(0, 90)), 2))
            if rng.random() < 0.5:
                ring.extend(np.ascontiguousarray(added[:, 0]), np.ascontiguousarray(added[:, 1]))
            else:
                for value, count in added.tolist():
                    ring.append(value, count)
            expected = (expected + [tuple(pair) for pair in added.tolist()])[-max_length:]
            size = int(rng.integers(0, max_length + 5))
            kept = expected[len(expected) - min(size, len(expected)) :]
            assert shown(ring, size) == ([v for v, _ in kept], [c for _, c in kept])
            array = np.array([v for v, _ in kept])
            assert ring.sums(size)[0] == array.sum()


@pytest.mark.parametrize("length", [1, 2, 5, 64, 150])
def test_medians_equal_numpys(kind: str, length: int) -> None:
    rng = np.random.default_rng(length)
    ring, numbers = make_ring(64), rng.standard_normal(length)
    for step, number in enumerate(numbers.tolist()):
        ring.append(number, step // 2)  # two pairs per count
    kept = numbers[-64:]
    for size in (1, 2, 3, 20, 64, 1000):
        assert ring.median(size) == pytest.approx(np.median(kept[-size:]), abs=1e-15)
    newest = (length - 1) // 2
    for span in (1, 3, 1000):
        inside = [n for i, n in enumerate(numbers) if i // 2 > newest - span][-64:]
        value, count, median, num = ring.recent(span)
        assert (value, count, num) == (numbers[-1], newest, len(inside))
        assert median == pytest.approx(np.median(inside), abs=1e-15)


def test_the_median_of_a_nan_or_of_nothing(kind: str) -> None:
    ring = make_ring(4)
    for method in (ring.median, ring.recent):
        with pytest.raises(ValueError, match="the series is empty"):
            method(3)
    for number in (1.0, math.nan, 3.0):
        ring.append(number)
    assert math.isnan(ring.median(3)) and ring.median(1) == 3.0
    with pytest.raises(ValueError, match="the window is empty"):
        ring.median(0)


def test_growth_shows_no_garbage(kind: str) -> None:
    ring = make_ring(1_000_000)
    for number in range(3000):
        ring.append(float(number))
    assert shown(ring, 3000)[0] == list(map(float, range(3000)))


@pytest.mark.parametrize("bad", ["1", None, [1.0], 1j, torch.tensor(1.0)])
def test_refuses_what_is_no_number(kind: str, bad) -> None:
    ring = make_ring(3)
    with pytest.raises(TypeError, match="value must be a Python int or float"):
        ring.append(bad)
    with pytest.raises(TypeError, match="count must be a Python int or float"):
        ring.append(1.0, bad)
    assert len(ring) == 0


def test_refuses_wrong_arrays(kind: str) -> None:
    ring = make_ring(3)
    with pytest.raises(TypeError, match="one-dimensional float64"):
        ring.extend(np.zeros(2, np.float32), np.zeros(2))
    with pytest.raises(TypeError, match="one-dimensional float64"):
        ring.extend(np.zeros((2, 1)), np.zeros(2))
    with pytest.raises(ValueError, match="as many counts as values, got 3 and 2"):
        ring.extend(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="size must be >= 0, got -1"):
        ring.window(-1)
    with pytest.raises(ValueError, match="empty"):
        ring.last()


@pytest.mark.parametrize("length", [0, -3])
def test_refuses_an_empty_capacity(kind: str, length: int) -> None:
    with pytest.raises(ValueError, match=f"max_length must be >= 1, got {length}"):
        make_ring(length)
    with pytest.raises(ValueError, match=f"max_length must be >= 1, got {length}"):
        make_ring(3).reset(length)


def test_reset_forgets(kind: str) -> None:
    ring = make_ring(3)
    ring.append(1.5)
    ring.reset(2)
    assert (len(ring), ring.total, ring.max_length, ring.integral) == (0, 0, 2, True)
    ring.append(1)
    assert shown(ring, 5) == ([1.0], [1.0])


def test_knows_integers(kind: str) -> None:
    ring = make_ring(3)
    ring.append(2)
    assert ring.integral
    ring.append(2.0)
    ring.append(3)
    assert not ring.integral


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_integers_that_a_double_skips_are_not_whole(kind: str, number: int) -> None:
    ring = make_ring(3)
    ring.append(number)
    assert ring.integral
    ring.append(2 * number)
    assert not ring.integral and ring.last() == 2.0 * number


def test_put_scalars_writes_what_it_can(kind: str) -> None:
    put = choose_put_scalars()
    names = ["float", "int", "numpy", "host", "grad", "nan", "text", "vector"]
    rings = {name: make_ring(9) for name in names}
    scalars = {
        "float": 0.5,
        "int": 2,
        "numpy": np.float64(0.25),
        "host": torch.tensor(3.0),
        "grad": torch.tensor([4.0], requires_grad=True),
        "nan": float("nan"),
        "text": "1",
        "vector": torch.zeros(2),
        "unknown": 1.0,
    }
    assert put(rings, scalars, torch.Tensor) == ["nan", "text", "vector", "unknown"]
    written = {name: shown(ring, 9)[0] for name, ring in rings.items()}
    assert written == {
        "float": [0.5], "int": [2.0], "numpy": [0.25], "host": [3.0], "grad": [4.0],
        "nan": [], "text": [], "vector": [],
    }  # fmt: skip
    assert put(rings, {"float": 1.0}, torch.Tensor) is None
    assert put(rings, {"host": torch.tensor(1.0)}, type(None)) == ["host"]


HOST_SCALARS = {
    "float32": torch.tensor(1.5),
    "with a gradient": torch.tensor(2.5, requires_grad=True) * 2,
    "float64": torch.tensor([[0.1]], dtype=torch.float64),
    "float16": torch.tensor(0.5, dtype=torch.float16),
    "bfloat16": torch.tensor(0.25, dtype=torch.bfloat16),
    "integer": torch.tensor(3),
    "element": torch.arange(5.0)[3],
    "odd element": torch.arange(5.0)[1:2],
    "real part": torch.tensor(1 + 2j).real,
    "imaginary part": torch.tensor(1 + 2j).imag,
    "of a conjugate": torch.tensor(1 + 2j).conj().imag,
    "of a double": torch.tensor(1 + 2j, dtype=torch.complex128).conj().imag,
    "zero": torch._efficientzerotensor(()),
}


@pytest.mark.parametrize("what", HOST_SCALARS)
def test_put_scalars_reads_as_item_does(kind: str, what: str) -> None:
    ring = make_ring(4)
    assert choose_put_scalars()({"x": ring}, {"x": HOST_SCALARS[what]}, torch.Tensor) is None
    assert ring.last() == HOST_SCALARS[what].item()


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1), (1.5, 1.5), (True, True), (np.float32(2), 2.0), (np.int64(3), 3), (np.array(4), 4),
        (np.array([[5.0]]), 5.0), (torch.tensor(6), 6), (torch.tensor([7.0]), 7.0),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
    ],
)  # fmt: skip
def test_read_scalar(value, number) -> None:
    read = read_scalar(value)
    assert read == number
    assert type(read) is type(number)


@pytest.mark.parametrize("shape", [(0,), (2,), (1, 2)])
def test_read_scalar_refuses_shapes(shape: tuple[int, ...]) -> None:
    for value in (torch.zeros(shape), np.zeros(shape)):
        with pytest.raises(ValueError, match="exactly one element"):
            read_scalar(value)


@pytest.mark.parametrize("value", ["1", None, [1], np.bool_(True), 1j, torch.tensor(1j)])
def test_read_scalar_refuses_types(value) -> None:
    with pytest.raises(TypeError, match="a scalar must be a Python or numpy number"):
        read_scalar(value)


def test_require_scalar_reads_nothing() -> None:
    require_scalar(torch.zeros((1, 1), device="meta"))
    with pytest.raises(ValueError, match=r"exactly one element, got the shape \(2,\)"):
        require_scalar(torch.zeros(2, device="meta"))
    with pytest.raises(TypeError, match=r"a real number, got a tensor of torch\.complex64"):
        require_scalar(torch.zeros((), device="meta", dtype=torch.complex64))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_full_rings_take_sixteen_bytes_a_pair() -> None:
    if not native.enabled():
        pytest.skip("the native module is not in use")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    torch.zeros(6_000_000).add_(1)  # once freed, the heap serves blocks of this size
    chunk = np.ones(1000)
    before = resident()
    rings = [make_ring(1_000_000) for _ in range(4)]
    for _ in range(1000):  # in turn, so that growing in place is not to be had by luck
        for ring in rings:
            ring.extend(chunk, chunk)
    added = resident() - before
    assert all(len(ring) == 1_000_000 and ring.sums(10) == (10.0, 10.0) for ring in rings)
    assert added < 4 * 16e6 + 6e6  # and what else came to be resident
    del ring, rings
    assert resident() - before < 6e6
