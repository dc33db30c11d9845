"""Loading from everywhere, the mismatch report, and files of other packages."""

import functools
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fasttrain.core.checkpoint import UnsafeCheckpointError, Writer, save
from fasttrain.logging import MessageHub
from fasttrain.registry import MODEL_WRAPPERS
from fasttrain.runner import (
    CheckpointLoader,
    checkpoint,
    find_latest_checkpoint,
    get_external_models,
    get_state_dict,
    load_checkpoint,
    load_state_dict,
    save_checkpoint,
    weights_to_cpu,
)
from fasttrain.runner.checkpoint import (
    _load_checkpoint,
    _load_checkpoint_with_prefix,
    find_intact_checkpoint,
    read_checkpoint,
)
from support import assert_same

DATA = Path(__file__).parent / "data"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.fc = nn.Linear(2, 1)


@MODEL_WRAPPERS.register_module(force=True)
class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture(autouse=True)
def schemes(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, "_schemes", CheckpointLoader._schemes.copy())


def other_weights():
    torch.manual_seed(1)
    return Model().state_dict()


@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_load_checkpoint(tmp_path, model, key):
    weights = other_weights()
    named = OrderedDict((f"module.{name}", value) for name, value in weights.items())
    save_checkpoint({key: named, "meta": {"epoch": 1}} if key else named, tmp_path / "a.pth")
    loaded = load_checkpoint(model, str(tmp_path / "a.pth"), strict=True)
    assert_same(dict(model.state_dict()), dict(weights))
    assert list(loaded) == ([key, "meta"] if key else list(named))


def test_revised_keys(tmp_path, model):
    weights = OrderedDict((f"net.{name}", value) for name, value in other_weights().items())
    save_checkpoint({"state_dict": weights}, tmp_path / "a.pth")
    load_checkpoint(model, str(tmp_path / "a.pth"), strict=True, revise_keys=[(r"^net\.", "")])
    assert_same(model.fc.weight.detach(), weights["net.fc.weight"])


def test_the_mismatch_report(model, capsys):
    weights = other_weights()
    del weights["fc.bias"], weights["block.norm.num_batches_tracked"]
    weights["fc.weight"], weights["extra"] = torch.zeros(3, 2), torch.zeros(1)
    report = (
        "The model and loaded state dict do not match exactly\n\n"
        "size mismatch for fc.weight: copying a param with shape torch.Size([3, 2]) from "
        "checkpoint, the shape in current model is torch.Size([1, 2]).\n"
        "unexpected key in source state_dict: extra\n\n"
        "missing keys in source state_dict: fc.bias\n"
    )
    before = model.fc.weight.clone()
    load_state_dict(model, weights)
    assert report in capsys.readouterr().out
    assert_same(model.fc.weight.detach(), before.detach())
    assert_same(model.block.conv.weight.detach(), weights["block.conv.weight"])
    with pytest.raises(RuntimeError) as caught:
        load_state_dict(model, weights, strict=True)
    assert str(caught.value) == report


def test_wrappers_are_looked_through(model):
    weights = other_weights()
    model.block = Wrapper(model.block)
    wrapped = Wrapper(model)
    assert list(get_state_dict(wrapped)) == list(weights)
    load_state_dict(wrapped, weights, strict=True)
    assert_same(dict(get_state_dict(wrapped)), dict(weights))
    assert get_state_dict(wrapped)._metadata["block.norm"] == {"version": 2}


def test_hooks_of_state_dicts_run(model):
    seen = []
    model.block.register_state_dict_post_hook(lambda m, state, prefix, meta: seen.append(prefix))
    model.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    get_state_dict(model)
    assert seen == ["block."]
    load_state_dict(model, OrderedDict(), strict=True)


def test_weights_to_cpu():
    weights = OrderedDict(a=torch.ones(2), b={"c": torch.ones(1)}, d=[torch.ones(1)], e=3)
    weights._metadata = OrderedDict(x=1)
    moved = weights_to_cpu(weights)
    assert moved._metadata == weights._metadata
    assert_same(moved, weights)


def test_a_prefix(tmp_path):
    weights = other_weights()
    save_checkpoint({"state_dict": weights}, tmp_path / "a.pth")
    part = _load_checkpoint_with_prefix("fc", str(tmp_path / "a.pth"))
    assert_same(part, {name: weights[f"fc.{name}"] for name in ("weight", "bias")})
    with pytest.raises(AssertionError, match=r"nope\. is not in the pretrained model"):
        _load_checkpoint_with_prefix("nope", str(tmp_path / "a.pth"))


def test_files_that_are_no_checkpoints(tmp_path, model):
    with pytest.raises(FileNotFoundError, match=r"none\.pth can not be found\."):
        load_checkpoint(model, str(tmp_path / "none.pth"))
    save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RuntimeError, match="No state_dict found in checkpoint file"):
        load_checkpoint(model, str(tmp_path / "list.pth"))


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def test_a_malicious_file_is_refused(tmp_path, model):
    torch.save({"state_dict": {}, "message_hub": Evil()}, tmp_path / "a.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"refused to unpickle 'posix\.system'"):
        load_checkpoint(model, str(tmp_path / "a.pth"))


def test_mmengines_own_checkpoint():
    loaded = read_checkpoint(DATA / "mmengine_0.10.7.pth")
    assert list(loaded) == [
        "meta", "state_dict", "message_hub", "optimizer", "param_schedulers", "ema_state_dict",
    ]  # fmt: skip
    assert loaded["meta"]["mmengine_version"] == "0.10.7"
    hub = MessageHub("mmengine_file")
    hub.load_state_dict(loaded["message_hub"])
    values, counts = hub.get_scalar("train/loss").data
    assert len(values) == len(counts) == 12
    assert values[0] == pytest.approx(1.00988281)
    assert hub.get_info("eta") == 0.0
    assert hub.get_info("keep_ckpt_ids") == [2, 3]


def test_detectron2s_checkpoints(tmp_path, model):
    weights = {name: value.numpy() for name, value in other_weights().items()}
    content = {"model": weights, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=2))
    loaded = read_checkpoint(tmp_path / "a.pkl")
    np.testing.assert_array_equal(loaded["model"]["fc.weight"], weights["fc.weight"])
    assert loaded["__author__"] == "someone"


def test_schemes(tmp_path):
    find = CheckpointLoader._get_checkpoint_loader
    names = {
        "a.pth": "local", "s3://a": "ceph", "x:s3://a": "ceph", "petrel://a": "ceph",
        "http://a": "http", "https://a": "http", "modelzoo://a": "torchvision",
        "torchvision://a": "torchvision", "mmcls://a": "mmcls", "open-mmlab://a": "openmmlab",
        "openmmlab://a": "openmmlab", "pavi://a": "pavi",
    }  # fmt: skip
    assert {path: find(path).__name__.removeprefix("load_from_") for path in names} == names

    @CheckpointLoader.register_scheme(prefixes=["own://", "mine://"])
    def load_own(filename, map_location):
        return filename, map_location

    assert CheckpointLoader.load_checkpoint("mine://x", "cpu") == ("mine://x", "cpu")
    with pytest.raises(KeyError, match="own:// is already registered as a loader backend"):
        CheckpointLoader.register_scheme("own://", load_own)
    CheckpointLoader.register_scheme("own://", lambda *a: "new", force=True)
    assert CheckpointLoader.load_checkpoint("own://x") == "new"


def test_any_url_through_fsspec():
    state = {"state_dict": OrderedDict(a=torch.arange(3.0)), "meta": {"epoch": 2}}
    save_checkpoint(state, "memory://runs/a.pth")
    assert_same(_load_checkpoint("memory://runs/a.pth"), state)
    with pytest.raises(FileNotFoundError, match=r"memory://none\.pth can not be found"):
        _load_checkpoint("memory://none.pth")


def test_names_of_published_models(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        checkpoint, "load_from_http", lambda url, map_location=None: asked.append(url) or {}
    )
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    (tmp_path / "open_mmlab.json").write_text('{"own": "https://here/own.pth", "file": "f.pth"}')
    _load_checkpoint("open-mmlab://own")
    _load_checkpoint("open-mmlab://resnet50_caffe")  # the old name of another one
    _load_checkpoint("mmcls://resnet50")
    assert asked[0] == "https://here/own.pth"
    assert asked[1] == get_external_models()["detectron/resnet50_caffe"]
    assert asked[2].endswith(".pth")
    save({"a": 1}, tmp_path / "f.pth")
    assert _load_checkpoint("open-mmlab://file") == {"a": 1}
    with pytest.raises(KeyError, match=r"mmcls://resnet5 names no published model; did you mean"):
        _load_checkpoint("mmcls://resnet5")
    with pytest.raises(ImportError, match="Please install pavi"):
        _load_checkpoint("pavi://a")


def test_mmcls_weights_are_the_backbones(monkeypatch):
    weights = {"backbone.a": 1, "head.b": 2}
    monkeypatch.setattr(checkpoint, "load_from_http", lambda *a, **k: {"state_dict": weights})
    assert _load_checkpoint("mmcls://resnet50") == {"state_dict": {"a": 1}}


def test_downloads_without_a_network_tell_where_to_put_the_file(tmp_path):
    with pytest.raises(OSError, match=r"could not download .*put the file at .*nope\.pth"):
        checkpoint.load_from_http("http://127.0.0.1:1/nope.pth", model_dir=str(tmp_path))


def test_saving_in_the_background(tmp_path):
    writer, saved = Writer(), []
    for name in (str(tmp_path / "a.pth"), "memory://runs/b.pth"):
        state = {"w": torch.ones(3)}
        save_checkpoint(state, name, writer=writer, on_saved=lambda n=name: saved.append(n))
        state["w"].zero_()
        writer.drain()
        assert_same(_load_checkpoint(name), {"w": torch.ones(3)})
    assert saved == [str(tmp_path / "a.pth"), "memory://runs/b.pth"]


def test_arguments_that_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="cannot be set at the same time"):
        save_checkpoint({}, tmp_path / "a.pth", file_client_args={}, backend_args={})
    with pytest.raises(ValueError, match='should be "None" if filename starts with "pavi://"'):
        save_checkpoint({}, "pavi://a.pth", backend_args={})


def test_the_newest_intact_file_of_a_work_folder(tmp_path, caplog):
    assert find_latest_checkpoint(str(tmp_path)) is None
    assert find_intact_checkpoint(str(tmp_path)) is None
    save({"x": 1}, tmp_path / "pretrained.pth")
    assert find_intact_checkpoint(str(tmp_path)) is None
    for epoch in (1, 2, 3):
        save({"epoch": epoch, "w": torch.ones(100)}, tmp_path / f"epoch_{epoch}.pth")
        os.utime(tmp_path / f"epoch_{epoch}.pth", (epoch, epoch))
    save({}, tmp_path / "best_acc_epoch_3.pth")
    assert find_intact_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_3.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_2.pth"))
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_2.pth")
    for epoch in (2, 3):
        content = bytearray((tmp_path / f"epoch_{epoch}.pth").read_bytes())
        content[len(content) // 3] ^= 4
        (tmp_path / f"epoch_{epoch}.pth").write_bytes(content)
    assert find_intact_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_1.pth")
    assert "epoch_2.pth is damaged and passed over: " in caplog.text


def test_a_function_in_the_place_of_torchs_is_called(monkeypatch, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"anything")
    monkeypatch.setattr(torch, "load", lambda path, map_location=None: f"local:{path}")
    path = str(tmp_path / "weights.pth")
    assert _load_checkpoint(path) == f"local:{path}"


def test_a_replaced_function_that_knows_the_restriction_gets_it(monkeypatch, tmp_path):
    torch.save({"state_dict": {}, "evil": Path("x")}, tmp_path / "evil.pth")
    loose = functools.partial(torch.load, weights_only=False)
    monkeypatch.setattr(torch, "load", loose)
    with pytest.raises(UnsafeCheckpointError, match="pathlib"):
        _load_checkpoint(str(tmp_path / "evil.pth"))


def test_downloads_go_through_one_function(monkeypatch):
    asked = []
    monkeypatch.setattr(
        checkpoint, "load_url", lambda url, model_dir=None, **options: asked.append(url) or {}
    )
    assert _load_checkpoint("https://host/weights.pth") == {}
    assert asked == ["https://host/weights.pth"]


def test_a_bad_map_location_is_no_damage(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "ok.pth")
    with pytest.raises(RuntimeError, match=r"^don't know how to restore data location"):
        _load_checkpoint(str(tmp_path / "ok.pth"), map_location="nowhere")
