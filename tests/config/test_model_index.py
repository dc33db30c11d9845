"""The index of a package's models."""

import pytest

from fasttrain.config.model_index import (
    indexed_config,
    model_info,
    split_package_path,
)


@pytest.fixture
def package(tmp_path):
    files = {
        "model-index.yml": "Import: [configs/net/metafile.yml, configs/empty.yml]",
        "configs/empty.yml": "Collections: []",
        "configs/net/metafile.yml": (
            "Models:\n  - {Name: x, Config: configs/net/x.py, Weights: w}\n  - {Name: other}\n"
        ),
        "configs/net/x.py": "a = 1",
    }
    for name, text in files.items():
        (tmp_path / ".mim" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".mim" / name).write_text(text)
    return str(tmp_path)


def test_entries(package):
    info = {"Name": "x", "Config": "configs/net/x.py", "Weights": "w"}
    assert model_info(package, "net/x.py") == info
    path = f"{package}/.mim/configs/net/x.py"
    assert indexed_config(package, "net/x") == indexed_config(package, "net/x.py") == path
    for name in ("net/z.py", "base.py"):
        with pytest.raises(ValueError, match=r"Expected configs: \['net/x.py'\], but got"):
            model_info(package, name)


def test_split_package_path():
    assert split_package_path("mmdet::a/b.py") == ("mmdet", "a/b.py")
    for path in ("a/b.py", "a::b::c", "mmdet::", "::a"):
        with pytest.raises(ValueError, match="please specify the package name and relative"):
            split_package_path(path)
