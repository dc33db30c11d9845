"""Checkpoints of real runs: in the background as in the foreground, and resumed past damage."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fasttrain.core.checkpoint import CheckpointError, damage, load
from fasttrain.hooks import Hook
from support import assert_same


def hooks_cfg(**options):
    return {"default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1, **options}}}


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def test_background_saves_hold_what_foreground_saves_hold(make_runner, tmp_path):
    loaded = []
    for async_save in (False, True):
        work_dir = tmp_path / f"async_{async_save}"
        options = hooks_cfg(async_save=async_save, save_best="toy/score", rule="greater")
        make_runner(work_dir=str(work_dir), custom_hooks=[{"type": "EMAHook"}], **options).train()
        names = sorted(path.name for path in work_dir.glob("*.pth"))
        assert all(damage(work_dir / name) is None for name in names)
        pointer = (work_dir / "last_checkpoint").read_text()
        assert pointer == str(work_dir / "epoch_3.pth")
        files = {name: torch.load(work_dir / name, weights_only=True) for name in names}
        loaded.append({k: [v["state_dict"], v.get("ema_state_dict")] for k, v in files.items()})
    assert_same(loaded[0], loaded[1])
    assert "epoch_2.pth" in loaded[0]


def test_a_damaged_newest_file_is_passed_over(make_runner, tmp_path, caplog):
    whole = make_runner(**hooks_cfg())
    whole.train()
    expected = weights(whole)
    newest = Path(whole.work_dir) / "epoch_3.pth"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    resumed = make_runner(resume=True, **hooks_cfg())
    with caplog.at_level(logging.WARNING, "fasttrain.checkpoint"):
        resumed.train()
    assert "epoch_3.pth is damaged and passed over" in caplog.text
    assert_same(weights(resumed), expected)
    assert damage(newest) is None


class Breaks(Hook):
    priority = "LOWEST"

    def __init__(self, at):
        self.at = at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.at:
            raise RuntimeError("boom")


def test_an_exception_finishes_the_saves_under_way(make_runner, tmp_path):
    runner = make_runner(**hooks_cfg(async_save=True, by_epoch=False))
    runner.register_hook(Breaks(5))
    with pytest.raises(RuntimeError, match="boom"):
        runner.train()
    work_dir = Path(runner.work_dir)
    assert (work_dir / "last_checkpoint").read_text() == str(work_dir / "iter_6.pth")
    assert damage(work_dir / "iter_6.pth") is None
    assert not list(work_dir.glob(".*.tmp"))
    make_runner(**hooks_cfg()).train()  # the folder is free again


class Vanishes(Hook):
    """Makes the checkpoint folder unusable midway."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            runner.checkpoint_writer.drain()
            os.rename(runner.out, f"{runner.out}.moved")
            Path(runner.out).write_text("a file in the folder's place")


def test_a_folder_that_vanishes_stops_the_run_with_the_cause(make_runner, tmp_path):
    out_dir = tmp_path / "out"
    runner = make_runner(**hooks_cfg(async_save=True, by_epoch=False, out_dir=str(out_dir)))
    runner.out = str(out_dir)
    runner.register_hook(Vanishes())
    with pytest.raises(CheckpointError, match=r"out/work/iter_\d+\.pth' could not be saved"):
        runner.train()
    kept = tmp_path / "out.moved" / "work"
    assert sorted(path.name for path in kept.glob("*.pth")) == ["iter_1.pth", "iter_2.pth"]
    assert all(damage(path) is None for path in kept.glob("*.pth"))


def test_values_that_users_leave_on_the_hub_are_made_plain(make_runner):
    runner = make_runner(**hooks_cfg())
    runner.message_hub.update_info("note", Path("/some/where"))
    runner.train()
    info = load(f"{runner.work_dir}/epoch_3.pth")["message_hub"]["runtime_info"]
    assert info["note"] == "/some/where"


def test_values_that_cannot_be_saved_are_left_out_and_named(make_runner):
    runner = make_runner(**hooks_cfg(), log_level="INFO")
    runner.message_hub.update_info("tool", SimpleNamespace(a=1))
    runner.message_hub.update_info("note", 3)
    runner.train_dataloader.dataset.metainfo["draw"] = len
    runner.train()
    content = load(f"{runner.work_dir}/epoch_3.pth")
    info = content["message_hub"]["runtime_info"]
    assert "tool" not in info
    assert info["note"] == 3
    assert content["meta"]["dataset_meta"] == {"classes": ("line",)}
    (log,) = Path(runner.work_dir).glob("*/*.log")
    text = log.read_text()
    assert (
        "message_hub.runtime_info['tool'] is left out of the checkpoint: checkpoint holds" in text
    )
    assert "metainfo['draw'] is left out of the checkpoint" in text
    resumed = make_runner(**hooks_cfg(), log_level="INFO", resume=True)
    resumed.train_dataloader.dataset.metainfo["draw"] = len
    resumed.train()
    (_, log) = sorted(Path(runner.work_dir).glob("*/*.log"))
    assert "dataset metainfo from the resumed checkpoint is different" not in log.read_text()


def test_values_in_meta_that_cannot_be_saved_are_refused(make_runner):
    runner = make_runner(**hooks_cfg())
    bare = {"save_optimizer": False, "save_param_scheduler": False}
    with pytest.raises(TypeError, match=r"\['meta'\]\['tool'\] holds namespace"):
        runner.save_checkpoint(
            runner.work_dir, "a.pth", meta={"tool": SimpleNamespace(a=1)}, **bare
        )
    assert not Path(runner.work_dir, "a.pth").exists()
    with pytest.raises(TypeError, match="meta should be a dict or None, but got <class 'list'>"):
        runner.save_checkpoint(runner.work_dir, "a.pth", meta=[1])
