"""Settings of processes that load data."""

import multiprocessing
import sys
from types import SimpleNamespace

import pytest

from fasttrain.utils.dl_utils import set_multi_processing


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    before = multiprocessing.get_start_method(allow_none=True)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_start_method():
    multiprocessing.set_start_method("fork", force=True)
    set_multi_processing("fork")
    with pytest.warns(UserWarning, match="method `spawn` is different from the previous setting"):
        set_multi_processing("spawn")
    assert multiprocessing.get_start_method() == "spawn"


def test_threads_of_opencv(monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(setNumThreads=seen.append))
    set_multi_processing(multiprocessing.get_start_method(), opencv_num_threads=3)
    assert seen == [3]


def test_threads_of_distributed_runs(monkeypatch):
    import os

    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    with pytest.warns(UserWarning, match="Setting OMP_NUM_THREADS environment variable"):
        set_multi_processing(multiprocessing.get_start_method(), distributed=True)
    assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["MKL_NUM_THREADS"] == "4"
