"""Downloading checkpoints."""

import pickle

import pytest
import torch

from fasttrain.utils.dl_utils import load_url


def test_load_url_keeps_the_file(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "model.pth")
    url = (tmp_path / "model.pth").as_uri()
    loaded = load_url(url, str(tmp_path / "cache"), progress=False)
    assert loaded["weight"].tolist() == [1, 1] and (tmp_path / "cache" / "model.pth").is_file()


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"code": print}, tmp_path / "model.pth")
    url = (tmp_path / "model.pth").as_uri()
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_url(url, str(tmp_path / "cache"), progress=False)
    trusted = load_url(url, str(tmp_path / "cache"), progress=False, weights_only=False)
    assert trusted == {"code": print}
