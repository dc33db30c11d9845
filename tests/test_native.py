"""The door to the compiled module: switches, what it reports, and its errors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from fasttrain import native


def test_info_says_what_is_in_use():
    info = native.info()
    assert info["torch"] == torch.__version__
    assert info["threads"] == torch.get_num_threads()
    assert info["enabled"] == native.enabled()
    if native.available():
        assert info["cpu_path"] in info["cpu_paths"]
        assert info["cpu_paths"][0] == "baseline"
        assert info["team"] in ("openmp", "threads")
        assert isinstance(info["cuda"], bool)


def test_environment_switches_it_off(monkeypatch):
    monkeypatch.setenv("FASTTRAIN_NATIVE", "0")
    assert not native.enabled() and not native.cuda_usable()
    assert native.info()["reason"] is not None


def test_cpu_path_is_chosen_and_checked(monkeypatch):
    paths = list(native.module().cpu_paths())
    monkeypatch.delenv("FASTTRAIN_CPU_PATH", raising=False)
    assert native.cpu_path() == paths[-1]
    monkeypatch.setenv("FASTTRAIN_CPU_PATH", "baseline")
    assert native.cpu_path() == "baseline"
    monkeypatch.setenv("FASTTRAIN_CPU_PATH", "sse9")
    with pytest.raises(ValueError, match=r"FASTTRAIN_CPU_PATH must be one of .* got 'sse9'"):
        native.cpu_path()


def test_a_missing_module_says_how_to_build_it(monkeypatch):
    monkeypatch.setattr(native, "_C", None)
    assert not native.available() and not native.enabled()
    with pytest.raises(RuntimeError, match=r"build it with `pip install -e \.`"):
        native.module()
    assert native.info()["available"] is False


def test_parallel_regions_run_in_torchs_own_team():
    """Where torch brings an OpenMP runtime, no second pool of threads appears."""
    if "OpenMP" not in torch.__config__.parallel_info():
        pytest.skip("torch was built without OpenMP")
    assert native.module().thread_team() == "openmp"


def test_importable_before_torch_and_without_a_driver():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    code = (
        "import importlib.util, sys; "
        "spec = importlib.util.find_spec('fasttrain._C'); "
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "assert 'torch' not in sys.modules; "
        "assert module.cuda_problem()"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
