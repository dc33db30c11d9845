"""Which modules are wrappers."""

from __future__ import annotations

import subprocess
import sys

from torch import nn

from fasttrain.model import is_model_wrapper
from fasttrain.registry import MODEL_WRAPPERS, Registry


def test_registered_wrappers_and_those_of_a_child_registry() -> None:
    assert is_model_wrapper(nn.DataParallel(nn.Identity()))
    assert not is_model_wrapper(nn.Identity())
    assert not is_model_wrapper(nn.DataParallel(nn.Identity()), Registry("empty", scope="empty"))
    child = Registry("model_wrapper", scope="wrapper_test", parent=MODEL_WRAPPERS)
    try:

        @child.register_module()
        class Wrapped(nn.Module):
            pass

        assert is_model_wrapper(Wrapped())
    finally:
        MODEL_WRAPPERS.children.pop("wrapper_test")


def test_all_wrappers_are_registered() -> None:
    names = {"DataParallel", "DistributedDataParallel", "MMDistributedDataParallel"}
    names |= {"MMSeparateDistributedDataParallel", "MMFullyShardedDataParallel"}
    assert names <= set(MODEL_WRAPPERS.module_dict)


def test_the_sharded_wrapper_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys, torch, fasttrain.model\n"
        "assert 'torch.distributed.fsdp' not in sys.modules\n"
        "from fasttrain.model import MMFullyShardedDataParallel as first\n"
        "from fasttrain.model.wrappers import MMFullyShardedDataParallel as second\n"
        "from fasttrain.registry import MODEL_WRAPPERS\n"
        "assert first is second is MODEL_WRAPPERS.get('MMFullyShardedDataParallel')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
