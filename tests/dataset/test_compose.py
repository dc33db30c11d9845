"""Pipelines: built from configs, ended by a refusal."""

from __future__ import annotations

import pytest

from fasttrain.dataset import Compose
from fasttrain.registry import TRANSFORMS


class Refuse:
    """A transform that refuses odd samples."""

    def __call__(self, data: dict) -> dict | None:
        return None if data["v"] % 2 else data

    def __repr__(self) -> str:
        return "Refuse()"


def test_pipelines_are_built_and_stop_at_none() -> None:
    TRANSFORMS.register_module(name="RefuseTest", module=Refuse)
    try:
        pipeline = Compose([dict(type="RefuseTest"), lambda data: {**data, "seen": True}])
    finally:
        TRANSFORMS.module_dict.pop("RefuseTest")
    assert pipeline({"v": 2}) == {"v": 2, "seen": True}
    assert pipeline({"v": 1}) is None
    assert repr(Compose([Refuse(), Refuse()])) == "Compose(\n    Refuse()\n    Refuse()\n)"
    assert Compose(None)({"a": 1}) == {"a": 1}


def test_wrong_transforms() -> None:
    with pytest.raises(TypeError, match="must be a callable object or dict, but got <class 'int'>"):
        Compose([1])  # type: ignore[list-item]
    TRANSFORMS.register_module(name="NotCallableTest", module=type("NotCallable", (), {}))
    try:
        with pytest.raises(TypeError, match="transform should be a callable object, but got"):
            Compose([dict(type="NotCallableTest")])
    finally:
        TRANSFORMS.module_dict.pop("NotCallableTest")
