"""What a run ran on."""

import sys

import torch

import fasttrain
from fasttrain.utils.dl_utils import collect_env
from fasttrain.utils.dl_utils.collect_env import _output_lines


def test_collect_env():
    env = collect_env()
    assert list(env)[:4] == ["sys.platform", "Python", "CUDA available", "numpy_random_seed"]
    assert env["sys.platform"] == sys.platform and env["PyTorch"] == torch.__version__
    assert env["CUDA available"] is torch.cuda.is_available()
    assert env["fasttrain"] == fasttrain.__version__ and env["MMEngine"].startswith("0.10.7")
    assert env["PyTorch compiling details"] == torch.__config__.show() and "OpenCV" in env
    assert isinstance(env["numpy_random_seed"], int)
    assert all("\n" not in str(env[name]) for name in ("Python", "GCC"))


def test_gpus_are_listed_by_name(monkeypatch):
    names = ["H100", "H100", "T4"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])
    monkeypatch.setenv("CUDA_HOME", "/cuda")
    env = collect_env()
    assert env["GPU 0,1"] == "H100" and env["GPU 2"] == "T4" and env["CUDA_HOME"] == "/cuda"


def test_programs_that_are_not_there():
    assert _output_lines(["not-a-program"]) == ["n/a"]
