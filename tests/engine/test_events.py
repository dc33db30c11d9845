"""EventStorage: what was put, at which iteration, and that no put reads a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fasttrain.engine.events import (
    EventStorage,
    flatten_results,
    get_event_storage,
    has_event_storage,
)
from slow_device import SlowReader


def test_scalars_carry_their_iteration() -> None:
    storage = EventStorage(5)
    storage.put_scalar("loss", 2.0)
    storage.step()
    storage.put_scalar("loss", torch.tensor(1.5))
    storage.put_scalars(a=1, b=np.float32(2.5), cur_iter=3)
    assert storage.iter == storage.iteration == 6
    assert storage.history("loss").values() == [(2.0, 5), (1.5, 6)]
    assert storage.latest() == {"loss": (1.5, 6), "a": (1.0, 3), "b": (2.5, 3)}
    assert list(storage.histories()) == ["loss", "a", "b"]


def test_a_changed_hint_is_refused() -> None:
    storage = EventStorage()
    storage.put_scalar("lr", 0.1, smoothing_hint=False)
    assert storage.smoothing_hints() == {"lr": False}
    with pytest.raises(AssertionError, match="lr was put with a different smoothing_hint"):
        storage.put_scalar("lr", 0.1)


def test_an_unknown_history_is_an_error() -> None:
    with pytest.raises(KeyError, match="No history metric available for loss"):
        EventStorage().history("loss")


def test_device_scalars_are_read_once_for_all() -> None:
    reader = SlowReader()
    storage = EventStorage(reader=reader)
    loss = torch.tensor(1.0)
    for step in range(10):
        storage.iter = step
        storage.put_scalar("loss", loss)
        storage.put_scalar("lr", 0.1, smoothing_hint=False)
        loss.add_(1)  # what was put is the value of then
    assert reader.num_waits == 0
    assert [value for value, _ in storage.history("loss").values()] == [*range(1, 11)]
    assert storage.latest()["lr"] == (0.1, 9)
    assert len(reader.transfers) == reader.num_waits == 1


def test_smoothing_takes_the_median_of_the_last_iterations() -> None:
    storage = EventStorage()
    for step, value in enumerate([100.0, 1.0, 2.0, 3.0]):
        storage.iter = step
        storage.put_scalar("loss", value)
        storage.put_scalar("lr", value, smoothing_hint=False)
    assert storage.latest_with_smoothing_hint(3) == {"loss": (2.0, 3), "lr": (3.0, 3)}
    storage.iter = 50
    storage.put_scalar("loss", 7.0)  # the only one within the last three iterations
    assert storage.count_samples("loss", 3) == 1
    assert storage.latest_with_smoothing_hint(3)["loss"] == (7.0, 50)


def test_scopes_nest_in_names_and_contexts() -> None:
    assert not has_event_storage()
    with pytest.raises(AssertionError, match="has to be called inside"):
        get_event_storage()
    with EventStorage() as outer:
        with outer.name_scope("val"), outer.name_scope("box"):
            outer.put_scalar("ap", 1)
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    assert list(outer.histories()) == ["val/box/ap"]


def test_histories_offer_medians_and_means() -> None:
    storage = EventStorage()
    for value in (4.0, 1.0, 3.0):
        storage.put_scalar("x", value)
    history = storage.history("x")
    assert history.latest() == 3.0
    assert history.median(2) == 2.0
    assert history.avg(2) == 2.0
    assert history.global_avg() == pytest.approx(8 / 3)


def test_images_and_histograms_wait_for_a_writer() -> None:
    storage = EventStorage(4)
    storage.put_image("img", torch.zeros(3, 2, 2))
    storage.put_histogram("w", torch.tensor([0.0, 1.0, 1.0]), bins=2)
    assert storage._vis_data[0][2] == 4
    histogram = storage._histograms[0]
    assert histogram["bucket_counts"] == [1.0, 2.0]
    assert (histogram["min"], histogram["max"], histogram["num"]) == (0.0, 1.0, 3)
    storage.clear_images()
    storage.clear_histograms()
    assert storage._vis_data == [] and storage._histograms == []


def test_results_are_flattened_by_slashes() -> None:
    assert flatten_results({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}


def test_a_step_goes_in_by_one_call_under_its_scope() -> None:
    storage = EventStorage()
    with storage.name_scope("train"):
        for storage.iter in range(3):
            storage.put_all({"a": float(storage.iter), "b": torch.tensor(2.0)})
    assert storage.history("train/a").values() == [(0.0, 0), (1.0, 1), (2.0, 2)]
    assert storage.latest()["train/b"] == (2.0, 2)
    with storage.name_scope("train"), pytest.raises(AssertionError, match="train/a was put with"):
        storage.put_all({"a": 1.0}, smoothing_hint=False)


def test_the_mean_of_all_values_is_kept_up() -> None:
    storage = EventStorage()
    expected = []
    for value in range(1, 8):
        storage.put_scalar("x", value)
        expected.append(value)
        if value % 3 == 0:
            assert storage.history("x").global_avg() == pytest.approx(np.mean(expected))
    assert storage.history("x").global_avg() == pytest.approx(4.0)


def test_several_values_per_iteration_are_smoothed_together() -> None:
    storage = EventStorage()
    for storage.iter in range(50):
        for value in (1.0, 5.0, 9.0):
            storage.put_scalar("x", value + storage.iter)
    assert storage.count_samples("x", 20) == 60
    assert storage.latest_with_smoothing_hint(20)["x"][0] == pytest.approx(
        np.median([v + i for i in range(30, 50) for v in (1.0, 5.0, 9.0)])
    )
