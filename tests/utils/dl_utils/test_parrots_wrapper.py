"""Names of torch that are imported from here."""

import torch
from torch import nn

from fasttrain.utils.dl_utils import TORCH_VERSION, parrots_wrapper


def test_names():
    assert torch.__version__ == TORCH_VERSION == parrots_wrapper.TORCH_VERSION
    assert issubclass(nn.BatchNorm2d, parrots_wrapper._BatchNorm)
    assert issubclass(nn.InstanceNorm2d, parrots_wrapper._InstanceNorm)
    assert issubclass(nn.Conv2d, parrots_wrapper._ConvNd)
    assert parrots_wrapper.SyncBatchNorm is nn.SyncBatchNorm
    assert parrots_wrapper.is_rocm_pytorch() is (torch.version.hip is not None)
    assert parrots_wrapper.is_cuda_available() is torch.cuda.is_available()
    assert parrots_wrapper.get_build_config() == torch.__config__.show()


def test_cuda_home(monkeypatch):
    for name in ("CUDA_HOME", "CUDA_PATH", "ROCM_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    assert parrots_wrapper._get_cuda_home() is None
    monkeypatch.setenv("CUDA_PATH", "/cuda")
    assert parrots_wrapper._get_cuda_home() == "/cuda"
    monkeypatch.setattr(torch.version, "hip", "6.0")
    monkeypatch.setenv("ROCM_HOME", "/rocm")
    assert parrots_wrapper._get_cuda_home() == "/rocm"
