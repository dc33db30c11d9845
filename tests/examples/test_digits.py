"""The digits example: its parts, its accuracy, and a run that was killed and continued."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fasttrain.core import checkpoint
from support import assert_same

pytest.importorskip("sklearn")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digits"
CONFIG = EXAMPLE / "digits_cnn.py"

# Ends its own process in the middle of an epoch, as a power cut would.
KILLER = """
import os, signal
from fasttrain.hooks import Hook
from fasttrain.registry import HOOKS

@HOOKS.register_module()
class PowerCut(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)
"""
SMALL = f"""
_base_ = [{str(CONFIG)!r}]
custom_imports = dict(imports=["digits", "killer"], allow_failed_imports=False)
model = dict(width=4)
train_dataloader = dict(dataset=dict(shifted=False))
train_cfg = dict(max_epochs=4)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=4, convert_to_iter_based=True)]
"""


def fasttrain(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fasttrain", *arguments],
        capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import digits

    yield digits


def test_the_parts_are_disjoint_and_fixed(digits) -> None:
    parts = {split: digits.Digits(split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 1257, "val": 180, "test": 360,
    }  # fmt: skip
    labels = digits.load_digits().target
    indices = digits._indices(labels)
    assert sorted(i for part in indices.values() for i in part) == list(range(1797))
    assert torch.equal(parts["test"].images, digits.Digits("test").images)
    for part in parts.values():
        assert part.images.min() >= 0.0
        assert part.images.max() <= 1.0
        assert set(part.labels.tolist()) == set(range(10))


def test_shifts_move_pictures_by_one_pixel(digits) -> None:
    plain, shifted = digits.Digits("train"), digits.Digits("train", shifted=True)
    assert len(shifted) == 5 * len(plain)
    right = shifted.images[len(plain)]
    assert torch.equal(right[:, :, 1:], plain.images[0][:, :, :-1])
    assert torch.equal(shifted.labels[len(plain) :][: len(plain)], plain.labels)


def test_an_unknown_part_is_refused(digits) -> None:
    with pytest.raises(ValueError, match="split must be 'train', 'val' or 'test', got 'all'"):
        digits.Digits("all")


def test_training_reaches_98_percent(tmp_path: Path) -> None:
    done = fasttrain("train", str(CONFIG), "--work-dir", str(tmp_path), "--test", "--plot")
    assert done.returncode == 0, done.stderr
    *_, folder, curves, accuracy = done.stdout.splitlines()
    assert folder == f"work folder: {tmp_path}"
    assert curves == f"curves: {tmp_path / 'curves.png'}"
    assert (tmp_path / "curves.png").stat().st_size > 20_000
    found = re.fullmatch(r"test accuracy: (\d\.\d{4})", accuracy)
    assert found is not None, accuracy
    assert float(found.group(1)) >= 0.98


def test_a_killed_run_continues_to_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    config = tmp_path / "small.py"
    config.write_text(SMALL)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = fasttrain("train", str(config), "--work-dir", str(whole))
    assert done.returncode == 0, done.stderr

    fatal = tmp_path / "fatal.py"  # an epoch has ten iterations
    fatal.write_text(f"{SMALL}custom_hooks = [dict(type='PowerCut', iteration=25)]\n")
    done = fasttrain("train", str(fatal), "--work-dir", str(cut))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(path.name for path in cut.glob("epoch_*.pth")) == ["epoch_1.pth", "epoch_2.pth"]

    done = fasttrain("train", str(config), "--work-dir", str(cut), "--resume")
    assert done.returncode == 0, done.stderr
    states = [checkpoint.load(folder / "epoch_4.pth") for folder in (whole, cut)]
    for part in ("state_dict", "optimizer", "param_schedulers"):
        assert_same(states[1][part], states[0][part], part)
