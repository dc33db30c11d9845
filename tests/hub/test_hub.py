"""Configs and models that a package ships."""

import sys
from pathlib import Path

import pytest
import torch

from fasttrain.hub import get_config, get_model

FILES = {
    "__init__.py": "",
    "registry.py": """
from fasttrain import registry
MODELS = registry.Registry("model", parent=registry.MODELS, scope="hub_zoo")
""",
    ".mim/model-index.yml": "Import: [configs/lion/metafile.yml]\n",
    ".mim/configs/lion/metafile.yml": """
Models:
  - {Name: lion, Config: configs/lion/lion.py, Weights: WEIGHTS}
  - {Name: cub, Config: configs/lion/cub.py}
""",
    ".mim/configs/lion/lion.py": "model = dict(type='torch.nn.Linear', in_features=2)\n",
    ".mim/configs/lion/cub.py": """
_base_ = './lion.py'
data_preprocessor = 1
""",
    ".mim/configs/_base_/den.py": "den = 1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / "hub_zoo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("WEIGHTS", str(tmp_path / "lion.pth")))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    from fasttrain.registry import MODELS

    MODELS.children.pop("hub_zoo", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "hub_zoo"]:
        del sys.modules[name]


def test_configs(package: Path) -> None:
    for name in ("hub_zoo::lion/lion.py", "hub_zoo::lion/lion"):
        cfg = get_config(name)
        assert cfg.model.in_features == 2 and "model_path" not in cfg
    assert get_config("hub_zoo::lion/lion.py", pretrained=True).model_path.endswith("lion.pth")
    assert get_config("hub_zoo::_base_/den.py").den == 1


def test_what_is_not_there(package: Path) -> None:
    with pytest.raises(ValueError, match="please specify the package name and relative"):
        get_config("lion.py")
    with pytest.raises(ModuleNotFoundError, match="Package no_zoo is not installed"):
        get_config("no_zoo::lion.py")
    with pytest.raises(FileNotFoundError, match=r"the config 'lion/tiger.py' is neither"):
        get_config("hub_zoo::lion/tiger.py")
    with pytest.raises(AssertionError, match="Cannot find `Weights` in the index of hub_zoo"):
        get_config("hub_zoo::lion/cub.py", pretrained=True)
    with pytest.raises(AssertionError, match=r"the index of hub_zoo has no weights for"):
        get_config("hub_zoo::_base_/den.py", pretrained=True)


def test_models(package: Path) -> None:
    model = get_model("hub_zoo::lion/lion.py", out_features=3)
    assert isinstance(model, torch.nn.Linear) and model.weight.shape == (3, 2)
    torch.save({"state_dict": model.state_dict()}, package / "lion.pth")
    trained = get_model("hub_zoo::lion/lion.py", pretrained=True, out_features=3)
    assert torch.equal(trained.weight, model.weight)
    with pytest.raises(TypeError, match="data_preprocessor"):
        get_model("hub_zoo::lion/cub.py", out_features=3)
