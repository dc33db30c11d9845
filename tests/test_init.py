"""The package itself."""

import subprocess
import sys

import pytest

import fasttrain
from fasttrain.config import Config
from fasttrain.registry import MODELS


def test_names_of_the_rooms():
    from fasttrain import ConfigDict, print_log

    assert fasttrain.Config is Config and fasttrain.MODELS is MODELS
    assert ConfigDict(a=1).a == 1 and print_log is fasttrain.logging.print_log
    with pytest.raises(AttributeError, match="module 'fasttrain' has no attribute 'Nothing'"):
        _ = fasttrain.Nothing
    with pytest.raises(ImportError, match="cannot import name 'Nothing' from 'fasttrain'"):
        from fasttrain import Nothing  # noqa: F401


def test_importing_the_package_and_its_core_imports_no_room():
    code = (
        "import sys, fasttrain; from fasttrain import native, core; import fasttrain.core.update; "
        "assert not hasattr(fasttrain, '_nothing'); "
        "rooms = {n.split('.')[1] for n in sys.modules if n.startswith('fasttrain.')}; "
        "print(sorted(rooms - {'_C'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['core', 'native', 'version']"
