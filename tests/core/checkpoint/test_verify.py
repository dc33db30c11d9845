"""Every flipped bit and every cut is noticed; whole files of any origin pass."""

import pickle
import random
import zipfile
import zlib

import pytest
import torch

from fasttrain import native
from fasttrain.core.checkpoint import damage, save


@pytest.fixture(params=["native", "fallback"])
def whole(request, monkeypatch, tmp_path):
    if request.param == "fallback":
        monkeypatch.setenv("FASTTRAIN_NATIVE", "0")
    elif not native.enabled():
        pytest.skip("the native module is not built")
    torch.manual_seed(1)
    save({"a": torch.randn(130), "b": torch.zeros(0), "t": "text"}, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def test_every_flipped_bit_is_noticed(whole):
    content = whole.read_bytes()
    assert damage(whole) is None
    draw = random.Random(0)
    for offset in range(len(content)):
        flipped = bytearray(content)
        flipped[offset] ^= 1 << draw.randrange(8)
        whole.write_bytes(flipped)
        assert damage(whole) is not None, f"bit flip at byte {offset} of {len(content)}"


def test_every_cut_is_noticed(whole):
    content = whole.read_bytes()
    for size in (*range(0, len(content), 7), len(content) - 1):
        whole.write_bytes(content[:size])
        assert damage(whole) is not None, f"cut to {size} of {len(content)} bytes"
    whole.write_bytes(content + b"\0")
    assert damage(whole) is not None


def test_the_damage_is_named(whole):
    content = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data/0"))
    start = content.index(b"archive/data/0") + 200
    content[start] ^= 1
    whole.write_bytes(content)
    assert damage(whole) == f"the checksum of record {name} is wrong"
    whole.write_bytes(b"")
    assert damage(whole) == "the file is empty"
    whole.unlink()
    assert "No such file" in damage(whole)


@pytest.mark.parametrize("name", ["renamed.pth", "archive"])
def test_torchs_own_files_pass(tmp_path, name):
    torch.save({"a": torch.ones(3)}, tmp_path / name)
    assert damage(tmp_path / name) is None


def test_older_formats_are_checked_by_loading(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert damage(tmp_path / "a.pth") is None
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[:-5])
    assert "damaged" in damage(tmp_path / "a.pth")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert damage(tmp_path / "b.pkl") is None


@pytest.mark.skipif(not native.enabled(), reason="the native module is not built")
def test_checksums_agree_with_zlib():
    module = native.module()
    draw = random.Random(0)
    data = bytearray(draw.randbytes(70_000))
    tensor = torch.frombuffer(data, dtype=torch.uint8)
    for size in [0, 1, 15, 16, 63, 64, 255, 256, 257, 511, 512, 4096, 65_539]:
        for start in (0, 1, 13):
            expected = zlib.crc32(data[start : start + size])
            assert module.checkpoint_crc32(tensor.data_ptr() + start, size) == expected
            target = torch.zeros(size + 64, dtype=torch.uint8)
            copied = module.checkpoint_copy(
                [(tensor.data_ptr() + start, size)], [target.data_ptr()], 2
            )
            assert copied == [expected]
            assert torch.equal(target[:size], tensor[start : start + size])
            assert not target[size:].any()
