"""When what is saved under which name, what goes, and in which order."""

import copy
import os
import threading
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from fasttrain.core.checkpoint import CheckpointError, Writer, load, save
from fasttrain.core.checkpoint import writer as writer_module
from fasttrain.hooks import CheckpointHook


class Hub:
    def __init__(self):
        self.runtime_info = OrderedDict()

    def update_info(self, key, value):
        self.runtime_info[key] = value


class FakeRunner:
    """What the hook uses of a runner; `calls` are its saves."""

    def __init__(self, work_dir, **counters):
        self.work_dir = str(work_dir)
        self.message_hub = Hub()
        self.lines = []
        self.logger = SimpleNamespace(
            info=self.lines.append, warning=self.lines.append, error=self.lines.append
        )
        self.epoch, self.iter, self.max_epochs, self.max_iters = 0, 0, 4, 40
        vars(self).update(counters)
        self.calls = []

    def save_checkpoint(self, out_dir, filename, file_client_args=None, **options):
        self.calls.append({"filename": filename, **options})
        path = os.path.join(out_dir, filename)
        save({"meta": options["meta"], "state_dict": {}, "optimizer": {}}, path)


class AsyncRunner(FakeRunner):
    def __init__(self, work_dir, **counters):
        super().__init__(work_dir, **counters)
        self.checkpoint_writer = Writer()

    def save_checkpoint(self, out_dir, filename, *args, blocking=True, on_saved=None, **options):
        assert not blocking
        path = os.path.join(out_dir, filename)
        self.checkpoint_writer.submit({"meta": options["meta"]}, path, on_saved=on_saved)


@pytest.fixture
def runner(tmp_path):
    return FakeRunner(tmp_path)


def started(runner, **options):
    hook = CheckpointHook(**options)
    hook.before_train(runner)
    return hook


def run_epochs(hook, runner, epochs):
    for runner.epoch in range(epochs):
        runner.iter += 10
        hook.after_train_epoch(runner)


def files(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def test_every_epoch_and_the_pointer(runner, tmp_path):
    hook = started(runner, interval=1)
    run_epochs(hook, runner, 2)
    assert files(tmp_path) == ["epoch_1.pth", "epoch_2.pth", "last_checkpoint"]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_2.pth")
    assert runner.calls[1]["meta"] == {"epoch": 2, "iter": 20}
    assert runner.calls[1]["by_epoch"] is True
    assert hook.last_ckpt == runner.message_hub.runtime_info["last_ckpt"]
    assert "Saving checkpoint at 2 epochs" in runner.lines


def test_iterations_and_save_begin(runner, tmp_path):
    hook = started(runner, interval=2, by_epoch=False, save_begin=3, save_last=False)
    for runner.iter in range(8):
        hook.after_train_iter(runner, runner.iter)
    assert [call["filename"] for call in runner.calls] == ["iter_3.pth", "iter_5.pth", "iter_7.pth"]
    assert runner.calls[0]["meta"] == {"epoch": 0, "iter": 3}


@pytest.mark.parametrize("save_last", [True, False])
def test_the_last_epoch(runner, save_last):
    hook = started(runner, interval=3, save_last=save_last)
    run_epochs(hook, runner, 4)
    expected = ["epoch_3.pth"] + (["epoch_4.pth"] if save_last else [])
    assert [call["filename"] for call in runner.calls] == expected


def test_the_oldest_goes_only_when_the_new_one_and_the_pointer_stand(runner, tmp_path, monkeypatch):
    order = []
    hook = started(runner, interval=1, max_keep_ckpts=2)
    place = type(hook.file_backend)
    put, remove = place.put_text, place.remove

    def note_put(self, text, path):
        order.append(f"point {os.path.basename(text)} {os.path.exists(text)}")
        put(self, text, path)

    def note_remove(self, path):
        order.append(f"remove {os.path.basename(path)}")
        remove(self, path)

    monkeypatch.setattr(place, "put_text", note_put)
    monkeypatch.setattr(place, "remove", note_remove)
    run_epochs(hook, runner, 3)
    assert order[-2:] == ["point epoch_3.pth True", "remove epoch_1.pth"]
    assert files(tmp_path) == ["epoch_2.pth", "epoch_3.pth", "last_checkpoint"]
    assert runner.message_hub.runtime_info["keep_ckpt_ids"] == [2, 3]


def test_a_save_that_fails_keeps_the_old_files(runner, tmp_path, monkeypatch):
    hook = started(runner, interval=1, max_keep_ckpts=1)
    run_epochs(hook, runner, 1)
    monkeypatch.setattr(runner, "save_checkpoint", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hook.after_train_epoch(runner)
    assert files(tmp_path) == ["epoch_1.pth", "last_checkpoint"]


def test_a_resumed_run_goes_on_with_what_is_kept(runner, tmp_path):
    run_epochs(started(runner, interval=1), runner, 3)
    resumed = FakeRunner(tmp_path)
    resumed.message_hub.update_info("keep_ckpt_ids", [1, 2, 3])
    hook = started(resumed, interval=1, max_keep_ckpts=2)
    assert list(hook.keep_ckpt_ids) == [2, 3]
    assert files(tmp_path) == ["epoch_2.pth", "epoch_3.pth", "last_checkpoint"]


def test_the_best_one(runner, tmp_path):
    hook = started(runner, save_best="coco/mAP")
    for runner.epoch, score in enumerate([0.4, 0.3, 0.5, torch.tensor(0.45)], 1):
        hook.after_val_epoch(runner, {"coco/mAP": score})
    assert files(tmp_path) == ["best_coco_mAP_epoch_3.pth"]
    assert runner.message_hub.runtime_info == {
        "best_score": 0.5,
        "best_ckpt": str(tmp_path / "best_coco_mAP_epoch_3.pth"),
    }
    assert runner.calls[0]["save_optimizer"] is False
    assert (
        "The best checkpoint with 0.5000 coco/mAP at 3 epoch is saved to "
        "best_coco_mAP_epoch_3.pth." in runner.lines
    )
    resumed = FakeRunner(tmp_path, epoch=4)
    resumed.message_hub = runner.message_hub
    hook = started(resumed, save_best="coco/mAP")
    hook.after_val_epoch(resumed, {"coco/mAP": 0.45})
    assert resumed.calls == []


def test_several_best_ones(runner, tmp_path):
    hook = started(runner, save_best=["acc", "loss"], by_epoch=False)
    runner.iter = 10
    hook.after_val_epoch(runner, {"acc": 0.4, "loss": 1.0})
    runner.iter = 20
    hook.after_val_epoch(runner, {"acc": 0.3, "loss": 0.5})
    assert files(tmp_path) == ["best_acc_iter_10.pth", "best_loss_iter_20.pth"]
    assert hook.best_ckpt_path_dict == {
        "acc": str(tmp_path / "best_acc_iter_10.pth"),
        "loss": str(tmp_path / "best_loss_iter_20.pth"),
    }
    assert runner.message_hub.runtime_info["best_score_loss"] == 0.5


def test_the_first_metric_is_taken_by_auto(runner, tmp_path):
    hook = started(runner, save_best="auto")
    hook.after_val_epoch(runner, {"top1_acc": 0.4, "loss": 1.0})
    assert (hook.key_indicators, hook.rules) == (["top1_acc"], ["greater"])
    assert files(tmp_path) == ["best_top1_acc_epoch_0.pth"]


def test_the_newest_is_saved_again_when_it_is_the_best(runner, tmp_path):
    hook = started(runner, interval=1, save_best="acc", max_keep_ckpts=1)
    hook.after_train_epoch(runner)
    runner.epoch = 1
    hook.after_val_epoch(runner, {"acc": 0.4})
    assert [call["filename"] for call in runner.calls] == [
        "epoch_1.pth", "best_acc_epoch_1.pth", "epoch_1.pth",
    ]  # fmt: skip
    assert list(hook.keep_ckpt_ids) == [1]


def test_a_metric_that_validation_did_not_give(runner):
    hook = started(runner, save_best="acc")
    with pytest.raises(KeyError, match=r"save_best wants the metric 'acc'.*it gave \['loss'\]"):
        hook.after_val_epoch(runner, {"loss": 1.0})
    hook.after_val_epoch(runner, {})
    assert runner.lines[-1].startswith("Since `metrics` is an empty dict")


def test_published_copies(runner, tmp_path):
    hook = started(runner, interval=1, save_best="acc", published_keys=["meta", "state_dict"])
    run_epochs(hook, runner, 1)
    hook.after_val_epoch(runner, {"acc": 1.0})
    hook.after_train(runner)
    published = [name for name in files(tmp_path) if "-" in name]
    assert [name.split("-")[0] for name in published] == ["best_acc_epoch_0", "epoch_0"]
    assert list(load(tmp_path / published[0])) == ["meta", "state_dict"]
    assert not [name for name in os.listdir(tmp_path) if "publishing" in name]


def test_out_dir_gets_the_work_folders_name(tmp_path):
    runner = FakeRunner(tmp_path / "run")
    os.makedirs(tmp_path / "run")
    hook = started(runner, interval=1, out_dir=tmp_path / "out", filename_tmpl="ckpt-{}.pth")
    run_epochs(hook, runner, 1)
    assert hook.out_dir == str(tmp_path / "out" / "run")
    assert files(tmp_path / "out" / "run") == ["ckpt-1.pth"]
    assert files(tmp_path / "run") == ["last_checkpoint"]


def test_in_the_background_the_order_is_the_same(tmp_path):
    runner = AsyncRunner(tmp_path)
    hook = started(runner, interval=1, max_keep_ckpts=1, async_save=True)
    run_epochs(hook, runner, 3)
    hook.after_train(runner)
    assert files(tmp_path) == ["epoch_3.pth", "last_checkpoint"]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_3.pth")


def test_an_error_in_the_background_comes_up_at_the_next_iteration(tmp_path, monkeypatch):
    runner = AsyncRunner(tmp_path)
    hook = started(runner, interval=1, async_save=True, filename_tmpl="missing\0{}.pth")
    hook.after_train_epoch(runner)
    with pytest.raises(CheckpointError, match="could not be saved in the background"):
        for _ in range(1000):
            hook.after_train_iter(runner, 0)
            runner.checkpoint_writer._changed.acquire()
            runner.checkpoint_writer._changed.wait(0.01)
            runner.checkpoint_writer._changed.release()
    assert not (tmp_path / "last_checkpoint").exists()
    hook.on_exception(runner)


class Gate:
    """Holds the writer's thread until it is opened."""

    def __init__(self, monkeypatch):
        self.event = threading.Event()
        write = writer_module._write

        def held(job):
            assert self.event.wait(60)
            return write(job)

        monkeypatch.setattr(writer_module, "_write", held)


def test_a_busy_writer_is_passed_over_when_told_so(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    runner = AsyncRunner(tmp_path)
    hook = started(runner, interval=1, max_keep_ckpts=2, async_save={"policy": "skip"})
    for runner.epoch in range(3):
        hook.after_train_epoch(runner)
    assert runner.message_hub.runtime_info["keep_ckpt_ids"] == [1]
    assert hook.last_ckpt == str(tmp_path / "epoch_1.pth")
    skipped = [line for line in runner.lines if line.startswith("This checkpoint is skipped")]
    assert len(skipped) == 2
    gate.event.set()
    runner.epoch = 3  # the last one is never left out
    hook.after_train_epoch(runner)
    hook.after_train(runner)
    assert files(tmp_path) == ["epoch_1.pth", "epoch_4.pth", "last_checkpoint"]


def test_several_saves_may_be_under_way(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    runner = AsyncRunner(tmp_path)
    hook = started(runner, interval=1, async_save={"max_in_flight": 3})
    run_epochs(hook, runner, 3)
    assert runner.checkpoint_writer.in_flight == 3
    gate.event.set()
    hook.after_train(runner)
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_3.pth")


def test_a_hook_can_be_copied():
    assert copy.deepcopy(CheckpointHook(interval=3)).interval == 3


def test_runners_that_know_no_background_save_in_the_foreground(runner, tmp_path):
    hook = started(runner, interval=1, async_save=True)
    run_epochs(hook, runner, 1)
    assert files(tmp_path) == ["epoch_1.pth", "last_checkpoint"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"save_best": True}, AssertionError, '"save_best" should be a str or list of str or None'),
        ({"save_best": ["acc", "acc"]}, AssertionError, "Find duplicate element"),
        ({"save_best": ["auto", "acc"]}, AssertionError, 'Only support one "auto"'),
        ({"save_best": "acc", "rule": 1}, AssertionError, '"rule" should be a str or list'),
        ({"save_best": "acc", "rule": "up"}, KeyError, "rule must be greater, less or None"),
        ({"save_best": "x"}, ValueError, "Cannot infer the rule for key x"),
        (
            {"save_best": ["acc", "loss"], "rule": ["less"] * 3},
            AssertionError,
            'must be 1 or the same as number of "save_best", but got 3',
        ),
        ({"save_best": ("acc",)}, AssertionError, "should be a str or list of str or None"),
        ({"greater_keys": 1}, AssertionError, "greater_keys must be a str or a sequence of str"),
        ({"less_keys": [1]}, AssertionError, "less_keys must be a str or a sequence of str"),
        ({"published_keys": 3}, TypeError, '"published_keys" should be a str or a sequence of str'),
        ({"async_save": {"policy": "drop"}}, ValueError, "policy must be 'wait' or 'skip'"),
        ({"async_save": {"max_in_flight": 0}}, ValueError, "max_in_flight must be >= 1, got 0"),
        ({"save_begin": -1}, ValueError, "save_begin should not be less than 0, but got -1"),
        (
            {"file_client_args": {}, "backend_args": {}},
            ValueError,
            "cannot be set at the same time",
        ),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        CheckpointHook(**options)


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ({"save_best": "loss_acc"}, ["greater"]),
        ({"save_best": "mean_LOSS"}, ["less"]),
        ({"save_best": ["acc", "x"], "rule": "less"}, ["less", "less"]),
        ({"save_best": ["acc", "x"], "rule": ["greater", "less"]}, ["greater", "less"]),
        ({"save_best": "x", "greater_keys": "x"}, ["greater"]),
        ({"save_best": "x", "less_keys": ["x"]}, ["less"]),
    ],
)
def test_rules(options, rules):
    assert CheckpointHook(**options).rules == rules
