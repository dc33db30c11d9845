"""The doctor says what is in use, and why something is not."""

import json

import pytest

from fasttrain import native
from fasttrain.cli import doctor, main

BUILT = {
    "available": True,
    "enabled": True,
    "reason": None,
    "compiler": "13.1",
    "cuda": False,
    "cpu_paths": ["baseline", "avx2"],
    "cpu_path": "avx2",
}


def test_every_section_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for section in ("fasttrain", "native module", "CPU", "GPU", "PyTorch", "optional packages"):
        assert section in output


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == doctor.examine().keys()
    assert found["native module"] == doctor.about_native(native.info())


def test_native_module_in_use() -> None:
    assert doctor.about_native(BUILT) == {
        "built": "yes, compiler 13.1",
        "in use": "yes, CPU path avx2 of baseline, avx2",
        "CUDA backend": "not built: no nvcc was found, or FASTTRAIN_CUDA=OFF",
    }


def test_native_module_switched_off() -> None:
    rows = doctor.about_native(
        BUILT | {"enabled": False, "reason": "switched off by FASTTRAIN_NATIVE=0"}
    )
    assert rows["in use"] == "pure-torch fallbacks: switched off by FASTTRAIN_NATIVE=0"


def test_native_module_missing() -> None:
    rows = doctor.about_native({"available": False, "enabled": False, "reason": "No module _C"})
    assert rows == {
        "built": "no: No module _C",
        "in use": "pure-torch fallbacks, slower; build it with `pip install -e .`",
    }


def test_cuda_built_but_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.torch.version, "cuda", None)
    rows = doctor.about_native(BUILT | {"cuda": True})
    assert rows["CUDA backend"] == "built, not in use: this torch is a CPU build"
    assert doctor.about_gpu() == {"none": "this torch is a CPU build"}


def test_missing_packages_say_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OPTIONAL", {"no-such-package": "flying"})
    assert doctor.about_packages() == {"no-such-package": "not installed; needed for flying"}
