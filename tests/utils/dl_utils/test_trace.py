"""Whether code is being traced."""

import pytest
import torch

from fasttrain.utils.dl_utils import is_jit_tracing


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_is_jit_tracing():
    seen = []

    def double(x):
        seen.append(is_jit_tracing())
        return x * 2

    torch.jit.trace(double, torch.ones(1), check_trace=False)
    assert seen[0] is True and is_jit_tracing() is False
