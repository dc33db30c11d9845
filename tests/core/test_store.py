import math
import threading

import numpy as np
import pytest
import torch

from fasttrain import native
from fasttrain.core.history import Series
from fasttrain.core.store import ScalarStore
from slow_device import SlowReader


@pytest.fixture(params=["1", "0"], ids=["compiled", "arrays"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ScalarStore:
    if request.param == "1" and not native.available():
        pytest.skip("the compiled module is not built")
    monkeypatch.setenv("FASTTRAIN_NATIVE", request.param)
    return ScalarStore()


def values(store: ScalarStore, name: str) -> list[float]:
    return store.series(name).values().tolist()


def test_put_many_takes_all_kinds(store: ScalarStore) -> None:
    scalars = {
        "float": 1.5,
        "int": 2,
        "numpy": np.float32(2.5),
        "array": np.array([3.0]),
        "tensor": torch.tensor(3.5, requires_grad=True),
        "half": torch.tensor([4.0], dtype=torch.bfloat16),
        "counted": {"value": torch.tensor(6.0), "count": 4},
    }
    for _ in range(3):  # the first makes the series, the next take the short way
        store.put_many(scalars, "train/")
    assert list(store) == [f"train/{name}" for name in scalars]
    for name, number in zip(scalars, [1.5, 2, 2.5, 3.0, 3.5, 4.0, 6.0], strict=True):
        assert values(store, f"train/{name}") == [number] * 3
    assert store.series("train/counted").counts().tolist() == [4.0] * 3
    assert store.series("train/int").ring.integral
    assert not store.series("train/float").ring.integral


def test_one_count_for_all(store: ScalarStore) -> None:
    for count in range(3):
        store.put_many(
            {"a": 1.0, "b": torch.tensor(2.0), "own": {"value": 3.0, "count": 7}}, count=count
        )
        store.put("c", 4.0, count)
    for name, counts in (("a", [0, 1, 2]), ("b", [0, 1, 2]), ("c", [0, 1, 2]), ("own", [7] * 3)):
        assert store.series(name).counts().tolist() == counts


def test_prefixes_do_not_mix(store: ScalarStore) -> None:
    for prefix in ("", "a/", "b/", "a/"):
        store.put_many({"loss": float(len(prefix))}, prefix)
    assert values(store, "loss") == [0.0]
    assert values(store, "a/loss") == [2.0, 2.0]
    assert values(store, "b/loss") == [2.0]


def test_keys_may_change_from_call_to_call(store: ScalarStore) -> None:
    store.put_many({"a": 1.0})
    store.put_many({"b": 2.0, "a": 3.0})
    store.put_many({"a": {"value": 4.0}})
    store.put("a", 5.0)
    store.put("a", np.int64(6), 2)
    assert values(store, "a") == [1.0, 3.0, 4.0, 5.0, 6.0]
    assert values(store, "b") == [2.0]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("x", TypeError, "a scalar must be a Python or numpy number"),
        (torch.zeros(2), ValueError, "exactly one element"),
        ({"count": 2}, ValueError, "value must be defined in"),
    ],
)
def test_refuses(store: ScalarStore, value, error: type[Exception], text: str) -> None:
    store.put_many({"a": 1.0})
    with pytest.raises(error, match=text):
        store.put_many({"a": value})
    assert values(store, "a") == [1.0]


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("value", ["x", torch.zeros(2), torch.tensor(1j)], ids=str)
def test_what_is_refused_leaves_no_series(value: object, slow: bool) -> None:
    store = ScalarStore(reader=SlowReader() if slow else None)
    for put in (lambda: store.put("a", value), lambda: store.put_many({"a": value})):
        with pytest.raises((TypeError, ValueError)):
            put()
    with pytest.raises(TypeError):
        store.put("a", torch.tensor(1.0), "x")
    assert not len(store) and not store.pending


def test_names_need_not_be_text(store: ScalarStore) -> None:
    for _ in range(2):
        store.put_many({1: 2.0, 2: torch.tensor(3.0)}, "train/")
        store.put_many({1: 4.0})
    assert values(store, "train/1") == [2.0, 2.0] and values(store, "train/2") == [3.0, 3.0]
    assert values(store, 1) == [4.0, 4.0]


def test_nonfinite_numbers_are_noticed(store: ScalarStore) -> None:
    for step, number in enumerate([1.0, math.nan, 2.0, math.inf, 3.0]):
        store.step = step
        store.put_many({"loss": number, "lr": 0.1})
    store.step = 7
    store.put("other", torch.tensor(-math.inf))
    assert store.nonfinite == {"loss": 2, "other": 1}
    assert store.nonfinite_steps == {"loss": 3, "other": 7}
    assert len(values(store, "loss")) == 5


def test_adopt_and_discard(store: ScalarStore) -> None:
    store.put_many({"a": 1.0})
    own = Series(10)
    own.append(5.0)
    store.adopt("a", own)
    store.put_many({"a": 6.0})
    assert own.values().tolist() == [5.0, 6.0]
    store.discard("a")
    store.put_many({"a": 7.0})
    assert own.values().tolist() == [5.0, 6.0]
    assert values(store, "a") == [7.0]
    assert "a" in store and len(store) == 1


def test_threads_lose_nothing(store: ScalarStore) -> None:
    def work(number: int) -> None:
        for step in range(500):
            store.put_many({"shared": 1.0, f"own{number}": float(step)})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.series("shared")) == 2000
    for number in range(4):
        assert values(store, f"own{number}") == list(map(float, range(500)))


# --- a slow device -------------------------------------------------------------------------
@pytest.fixture
def reader() -> SlowReader:
    return SlowReader()


def test_puts_of_a_device_wait_together(reader: SlowReader) -> None:
    store = ScalarStore(reader=reader)
    for step in range(5):
        store.put_many({"loss": torch.tensor(step + 0.5), "lr": 0.1 * step})
    assert store.pending and not reader.transfers
    assert values(store, "lr") == [0.1 * step for step in range(5)]
    assert values(store, "loss") == [step + 0.5 for step in range(5)]
    assert len(reader.transfers) == 1 and not store.pending


def test_a_flush_shows_its_moment(reader: SlowReader) -> None:
    store = ScalarStore(reader=reader)
    seen: list[tuple[int, int]] = []
    for step in range(7):
        store.put_many({"loss": torch.tensor(float(step)), "lr": 0.1})
        if step == 2:
            flush = store.begin_flush(
                lambda: seen.append((len(store.series("loss")), len(store.series("lr"))))
            )
    assert not flush.ready()
    reader.land()
    assert flush.ready()
    flush.finish()
    assert seen == [(3, 3)]
    assert reader.num_waits == 0
    assert len(store.series("lr")) == 7


def test_nonfinite_on_a_device_shows_at_the_flush(reader: SlowReader) -> None:
    store = ScalarStore(reader=reader)
    for step in range(4):
        store.step = step
        store.put_many({"loss": torch.tensor(math.nan if step == 1 else 1.0)})
    assert store.nonfinite == {}
    store.flush()
    assert store.nonfinite == {"loss": 1} and store.nonfinite_steps == {"loss": 1}


@pytest.mark.parametrize(
    "second",
    [
        {"a": torch.tensor(2.0), "b": torch.tensor(3)},  # two types
        {"a": torch.tensor(2.0), "b": torch.tensor([3.0])},  # two shapes
        {"a": torch.tensor([2.0]), "b": torch.tensor([3.0])},
        {"a": torch.tensor(2.0), "b": 3.0},
        {"a": 2.0, "b": torch.tensor(3.0)},
        {"b": torch.tensor(3.0), "a": torch.tensor(2.0)},
        {"a": torch.tensor(2.0), "b": {"value": torch.tensor(3.0), "count": 1}},
    ],
)
def test_tensors_of_all_forms_queue_up(reader: SlowReader, second: dict) -> None:
    store = ScalarStore(reader=reader)
    for scalars in ({"a": torch.tensor(0.0), "b": torch.tensor(1.0)}, second, second):
        store.put_many(scalars, "train/")
    assert values(store, "train/a") == [0.0, 2.0, 2.0]
    assert values(store, "train/b") == [1.0, 3.0, 3.0]
    assert len(reader.transfers) == 1


def test_a_replaced_series_gets_the_next_stack(reader: SlowReader) -> None:
    store, own = ScalarStore(reader=reader), Series()
    scalars = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    store.put_many(scalars)
    store.adopt("a", own)
    store.put_many(scalars, count=3)
    assert own.values().tolist() == [1.0] and own.counts().tolist() == [3.0]
    assert values(store, "b") == [2.0, 2.0]


@pytest.mark.parametrize("bad", [torch.zeros(2), torch.tensor(1j)])
def test_bad_stacks_are_refused(reader: SlowReader, bad: torch.Tensor) -> None:
    store = ScalarStore(reader=reader)
    with pytest.raises((ValueError, TypeError), match=r"exactly one element|a real number"):
        store.put_many({"a": bad, "b": bad})


def test_put_later(reader: SlowReader) -> None:
    class Elapsed:
        def ready(self) -> bool:
            return True

        def resolve(self) -> float:
            return 0.25

    store = ScalarStore(reader=reader)
    store.put_later("time", Elapsed())
    store.put_many({"lr": 0.5})
    assert store.pending
    assert values(store, "time") == [0.25] and values(store, "lr") == [0.5]
