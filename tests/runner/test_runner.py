"""The runner: arguments, lazy building, hooks, checkpoints, errors a user meets."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from fasttrain.config import Config
from fasttrain.core.checkpoint import load
from fasttrain.evaluator import Evaluator
from fasttrain.hooks import EmptyCacheHook, Hook
from fasttrain.logging import MessageHub, MMLogger
from fasttrain.optim import OptimWrapper
from fasttrain.registry import DATASETS, DefaultScope
from fasttrain.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from support import assert_same

TRAIN = ("train_dataloader", "train_cfg", "optim_wrapper")
VAL = ("val_dataloader", "val_cfg", "val_evaluator")
TEST = ("test_dataloader", "test_cfg", "test_evaluator")
NOTHING = dict.fromkeys([*TRAIN, *VAL, *TEST, "param_scheduler"])


# Arguments.


@pytest.mark.parametrize("group", [TRAIN, VAL, TEST], ids=["train", "val", "test"])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_incomplete_groups_are_refused(make_cfg: Any, group: tuple, missing: int) -> None:
    cfg = make_cfg()
    cfg[group[missing]] = None
    if group is TRAIN:
        cfg["param_scheduler"] = None
    text = f"{group[0]}, {group[1]}, and {group[2]} should be either all None or not None, but got"
    with pytest.raises(ValueError, match=text):
        Runner.from_cfg(cfg)


def test_a_scheduler_needs_an_optimizer(make_cfg: Any) -> None:
    cfg = make_cfg(**{**NOTHING, "param_scheduler": {"type": "MultiStepLR", "milestones": [1]}})
    text = "param_scheduler should be None when optim_wrapper is None, but got"
    with pytest.raises(ValueError, match=text):
        Runner.from_cfg(cfg)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("train", "`self._train_loop` should not be None when calling train method"),
        ("val", "`self._val_loop` should not be None when calling val method"),
        ("test", "`self._test_loop` should not be None when calling test method"),
    ],
)
def test_running_without_its_configs(make_runner: Any, mode: str, text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        getattr(make_runner(**NOTHING), mode)()


@pytest.mark.parametrize("key", ["model", "work_dir"])
def test_missing_keys_are_named(make_cfg: Any, key: str) -> None:
    cfg = make_cfg()
    del cfg[key]
    with pytest.raises(KeyError, match=f"the runner's config needs the key '{key}'"):
        Runner.from_cfg(cfg)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"model": 3}, TypeError, "model should be a nn.Module object or dict, but got 3"),
        ({"launcher": "ssh"}, ValueError, "Invalid launcher type: ssh"),
        ({"env_cfg": 3}, TypeError, "env_cfg should be a dict, but got 3"),
        ({"env_cfg": {"mp_cfg": {"mp_start": "fork"}}}, TypeError, "unexpected .* 'mp_start'"),
        ({"log_processor": 3}, TypeError, "log processor should be a LogProcessor object or dict"),
        ({"visualizer": 3}, TypeError, "visualizer should be Visualizer object, a dict or None"),
        ({"param_scheduler": 3}, TypeError, "`param_scheduler` should be a `_ParamScheduler`"),
        ({"custom_hooks": [3]}, TypeError, "hook should be an instance of Hook or dict, but got 3"),
        ({"model": {"type": "LineModle"}}, KeyError, "LineModel"),
    ],
)
def test_wrong_arguments(make_cfg: Any, change: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Runner.from_cfg(make_cfg(**change))


def test_wrong_cfg(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cfg should be a dict or a Config"):
        Runner(nn.Linear(1, 1), str(tmp_path), cfg=3)


@pytest.mark.parametrize("mode", ["train", "val"])
def test_a_model_without_its_step_cannot_run(make_runner: Any, mode: str) -> None:
    model = nn.Linear(2, 1)
    if mode == "val":
        model.train_step = lambda data, optim_wrapper: {}
    with pytest.raises(AssertionError, match=f"your model has implemented `{mode}_step`"):
        make_runner(model=model).train()


@pytest.mark.parametrize(
    ("train_cfg", "error", "text"),
    [
        ({}, KeyError, "train_cfg needs `type`, or `by_epoch`"),
        ({"type": "EpochBasedTrainLoop", "by_epoch": True}, RuntimeError, "Only one of `type` or"),
        ({"by_epoch": True}, TypeError, "max_epochs"),
        ({"type": "EpochBasedTrainLop", "max_epochs": 1}, KeyError, "EpochBasedTrainLoop"),
    ],
)
def test_wrong_train_cfg(make_runner: Any, train_cfg: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        make_runner(train_cfg=train_cfg).train()


def test_the_callers_config_is_left_alone(make_cfg: Any) -> None:
    cfg, same = make_cfg(), make_cfg()
    Runner.from_cfg(cfg).train()
    assert cfg == same


# Lazy building.


def test_parts_read_as_configs_until_they_are_built(make_runner: Any) -> None:
    runner = make_runner()
    for name in ("_train_loop", "_val_loop", "_test_loop", "optim_wrapper", "_train_dataloader"):
        assert isinstance(getattr(runner, name), dict), name
    assert isinstance(runner.param_schedulers, dict)
    assert (runner.epoch, runner.iter) == (0, 0)
    assert isinstance(runner._train_loop, dict)
    assert isinstance(runner.train_loop, EpochBasedTrainLoop)
    assert runner._train_loop is runner.train_loop
    assert isinstance(runner.val_loop, ValLoop)
    assert isinstance(runner.test_loop, TestLoop)
    assert (runner.max_epochs, runner.max_iters) == (3, 12)
    assert (runner.val_begin, runner.val_interval) == (1, 1)
    assert isinstance(runner.val_evaluator, Evaluator)
    assert isinstance(runner.test_evaluator, Evaluator)
    for mode in ("train", "val", "test"):
        assert isinstance(getattr(runner, f"{mode}_dataloader"), DataLoader)
        assert isinstance(getattr(runner, f"_{mode}_dataloader"), dict)


def test_validation_builds_no_training(make_runner: Any) -> None:
    runner = make_runner()
    metrics = runner.val()
    assert metrics["toy/count"] == 12
    assert isinstance(runner._train_loop, dict)
    assert isinstance(runner.optim_wrapper, dict)
    assert runner.test().keys() == metrics.keys()


def test_without_a_training_counters_are_zero(make_runner: Any) -> None:
    runner = make_runner(**NOTHING)
    assert (runner.epoch, runner.iter, runner.max_epochs, runner.max_iters) == (0, 0, 0, 0)
    assert runner.train_loop is None


def test_objects_are_taken_as_they_are(make_cfg: Any) -> None:
    model = Runner.from_cfg(make_cfg(**NOTHING)).model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer)
    loader = DataLoader(DATASETS.build({"type": "LineData"}), batch_size=4)
    cfg = make_cfg(
        model=model, optim_wrapper=wrapper, train_dataloader=loader, param_scheduler=None
    )
    runner = Runner(**cfg)
    assert runner.train() is model
    assert runner.optim_wrapper is wrapper
    assert runner.train_dataloader is loader
    assert runner.iter == 9


def test_data_preprocessor_goes_into_the_models_config(make_runner: Any) -> None:
    preprocessor = {"type": "BaseDataPreprocessor", "non_blocking": True}
    runner = make_runner(data_preprocessor=preprocessor)
    assert runner.model.data_preprocessor._non_blocking is True
    own = {"type": "LineModel", "data_preprocessor": {"type": "BaseDataPreprocessor"}}
    runner = make_runner(model=own, data_preprocessor=preprocessor)
    assert runner.model.data_preprocessor._non_blocking is False


# Names and the environment.


def test_names_and_folders(make_runner: Any, tmp_path: Path) -> None:
    runner = make_runner(experiment_name="toy")
    assert runner.experiment_name == f"toy_{runner.timestamp}"
    assert runner.work_dir == str(tmp_path / "work")
    assert runner.log_dir == os.path.join(runner.work_dir, runner.timestamp)
    assert runner.model_name == "LineModel"
    assert (runner.launcher, runner.distributed) == ("none", False)
    assert (runner.rank, runner.world_size) == (0, 1)
    assert (runner.seed, runner.deterministic) == (7, False)
    assert runner.message_hub is MessageHub.get_instance(runner.experiment_name)
    assert runner.logger is MMLogger.get_instance(runner.experiment_name)
    assert runner.default_scope is DefaultScope.get_instance(runner.experiment_name)
    assert (Path(runner.work_dir) / f"{runner.timestamp}.py").is_file()


def test_two_runs_of_one_second_are_kept_apart(make_runner: Any) -> None:
    first, second = make_runner(), make_runner()
    assert first.experiment_name != second.experiment_name
    assert first.log_dir != second.log_dir
    assert first.message_hub is not second.message_hub


def test_without_a_scope_the_present_one_stays(make_runner: Any) -> None:
    before = make_runner().default_scope
    runner = make_runner(default_scope=None)
    assert runner.default_scope is None
    assert DefaultScope.get_current_instance() is before
    runner.train()
    assert make_runner(default_scope=None).experiment_name != runner.experiment_name


def test_name_and_dump_follow_the_config_file(make_cfg: Any, tmp_path: Path) -> None:
    path = tmp_path / "line.py"
    Config(make_cfg()).dump(str(path))
    runner = Runner.from_cfg(Config.fromfile(str(path)))
    assert runner.experiment_name == f"line_{runner.timestamp}"
    dumped = Config.fromfile(os.path.join(runner.work_dir, "line.py"))
    assert dumped.to_dict() == runner.cfg.to_dict()


def test_the_log_opens_with_the_environment(make_runner: Any) -> None:
    runner = make_runner(log_level="INFO")
    log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
    for part in ("System environment:", "    PyTorch: ", "    seed: 7", "Config:\n", "LineModel"):
        assert part in log
    assert "Hooks will be executed in the following order:\nbefore_run:" in log


def test_set_randomness(make_runner: Any) -> None:
    runner = make_runner()
    runner.set_randomness(seed=5, deterministic=True)
    assert (runner.seed, runner.deterministic) == (5, True)
    assert torch.are_deterministic_algorithms_enabled()
    runner.set_randomness(seed=None)
    assert isinstance(runner.seed, int)


# Hooks.


def test_default_hooks_in_order(make_runner: Any) -> None:
    runner = make_runner()
    names = [type(hook).__name__ for hook in runner.hooks]
    assert names == [
        "RuntimeInfoHook", "IterTimerHook", "DistSamplerSeedHook", "LoggerHook",
        "ParamSchedulerHook", "CheckpointHook",
    ]  # fmt: skip
    assert runner.hooks is runner._hooks


def test_default_hooks_are_changed_by_name(make_runner: Any) -> None:
    hooks = {"timer": None, "logger": {"type": "LoggerHook", "interval": 3}, "more": Hook()}
    runner = make_runner(default_hooks=hooks, custom_hooks=[{"type": "EmptyCacheHook"}])
    names = [type(hook).__name__ for hook in runner.hooks]
    assert "IterTimerHook" not in names
    assert names[2:4] == ["Hook", "EmptyCacheHook"]
    assert next(h for h in runner.hooks if type(h).__name__ == "LoggerHook").interval == 3


def test_priority_of_a_hook(make_runner: Any) -> None:
    runner = make_runner(default_hooks=dict.fromkeys(
        ["runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"]
    ))  # fmt: skip
    cfg = {"type": "EmptyCacheHook", "priority": "LOW"}
    runner.register_hook(cfg)
    assert cfg == {"type": "EmptyCacheHook", "priority": "LOW"}
    runner.register_hook(cfg, priority="HIGH")
    own = EmptyCacheHook()
    runner.register_hook(own)
    runner.register_hook(EmptyCacheHook(), priority=51)
    assert [hook.priority for hook in runner.hooks] == ["HIGH", "NORMAL", 51, "LOW"]
    assert runner.hooks[1] is own
    with pytest.raises(ValueError, match="priority must be between 0 and 100, got 101"):
        runner.register_hook(own, priority=101)
    with pytest.raises(KeyError, match="unknown priority 'SOON'"):
        runner.register_hook({"type": "EmptyCacheHook"}, priority="SOON")
    assert len(runner.hooks) == 4


def test_hooks_can_be_replaced(make_runner: Any) -> None:
    runner = make_runner()
    runner._hooks = [runner.hooks[0]]
    assert len(runner.hooks) == 1
    runner.register_hook(Hook(), priority="HIGHEST")
    assert type(runner.hooks[0]) is Hook


def test_any_object_can_stand_for_a_hook(make_runner: Any) -> None:
    runner, stand_in, bare = make_runner(), Mock(), SimpleNamespace()
    runner._hooks = [stand_in, bare]
    runner.call_hook("before_run")
    stand_in.before_run.assert_called_once_with(runner)
    runner.register_hook(Hook(), "LOW")
    runner.register_hook(Hook(), "HIGH")
    assert [type(hook).__name__ for hook in runner.hooks] == [
        "Hook",
        "Mock",
        "SimpleNamespace",
        "Hook",
    ]


def test_call_hook_passes_arguments_and_names_the_hook_of_a_type_error(make_runner: Any) -> None:
    class Custom(Hook):
        seen: Any = None

        def my_stage(self, runner: Any, value: int) -> None:
            self.seen = (runner, value)

    class Wrong(Hook):
        def before_run(self) -> None:  # type: ignore[override]
            pass

    runner, custom = make_runner(), Custom()
    runner.register_hook(custom)
    runner.call_hook("my_stage", value=3)
    assert custom.seen == (runner, 3)
    runner.register_hook(Wrong())
    with pytest.raises(TypeError, match=r"before_run\(\) takes 1 positional.* in <.*Wrong"):
        runner.call_hook("before_run")


def test_hooks_info(make_runner: Any) -> None:
    info = make_runner().get_hooks_info()
    assert "before_train_epoch:\n(VERY_HIGH   ) RuntimeInfoHook" in info
    assert "(VERY_LOW    ) CheckpointHook" in info
    assert "before_test_epoch:\n(NORMAL      ) IterTimerHook" in info
    assert "after_load_checkpoint" not in info


# Checkpoints.


def test_what_a_checkpoint_holds(make_runner: Any) -> None:
    runner = make_runner()
    runner.train()
    checkpoint = load(os.path.join(runner.work_dir, "epoch_3.pth"))
    meta = checkpoint["meta"]
    assert (meta["epoch"], meta["iter"], meta["seed"]) == (3, 12, 7)
    assert meta["experiment_name"] == runner.experiment_name
    assert meta["cfg"] == runner.cfg.pretty_text
    assert meta["dataset_meta"] == {"classes": ("line",)}
    assert {"time", "mmengine_version", "fasttrain_version"} <= meta.keys()
    assert {"state_dict", "message_hub", "optimizer", "param_schedulers"} <= checkpoint.keys()
    assert len(checkpoint["param_schedulers"]) == 1
    plain = torch.load(os.path.join(runner.work_dir, "epoch_3.pth"), weights_only=True)
    assert_same(dict(plain["state_dict"]), dict(runner.model.state_dict()))


def test_counters_in_meta(make_runner: Any, tmp_path: Path) -> None:
    runner = make_runner()
    runner.train()

    def saved(**options: Any) -> dict:
        runner.save_checkpoint(str(tmp_path), "x.pth", **options)
        return load(tmp_path / "x.pth")

    assert (saved()["meta"]["epoch"], saved()["meta"]["iter"]) == (4, 12)
    by_iter = saved(by_epoch=False, save_optimizer=False, save_param_scheduler=False)
    assert (by_iter["meta"]["epoch"], by_iter["meta"]["iter"]) == (3, 13)
    assert not {"optimizer", "param_schedulers"} & by_iter.keys()
    given = {"epoch": 9, "iter": 5, "note": "mine"}
    assert saved(meta=given)["meta"].items() >= given.items()
    with pytest.raises(TypeError, match="meta should be a dict or None, but got <class 'int'>"):
        saved(meta=3)
    runner.optim_wrapper = 3
    with pytest.raises(TypeError, match="should be an `OptimWrapper` or `OptimWrapperDict`"):
        saved()


def test_load_from_takes_the_weights_only(make_runner: Any) -> None:
    trained = make_runner()
    trained.train()
    path = os.path.join(trained.work_dir, "epoch_2.pth")
    runner = make_runner(load_from=path)
    runner.load_or_resume()
    assert runner._has_loaded
    assert (runner.epoch, runner.iter) == (0, 0)
    assert_same(dict(runner.model.state_dict()), load(path)["state_dict"])
    runner._load_from = "gone.pth"
    runner.load_or_resume()  # once only


def test_resume_restores_everything(make_runner: Any) -> None:
    trained = make_runner()
    trained.train()
    runner = make_runner(train_cfg={"by_epoch": True, "max_epochs": 4}, resume=True)
    runner.load_or_resume()
    assert (runner.epoch, runner.iter) == (3, 12)
    assert_same(
        runner.optim_wrapper.state_dict()["state"], trained.optim_wrapper.state_dict()["state"]
    )
    assert runner.param_schedulers[0].last_step == trained.param_schedulers[0].last_step
    history = runner.message_hub.get_scalar("train/loss")
    assert_same(history.data[0], trained.message_hub.get_scalar("train/loss").data[0])
    runner.train()
    assert (runner.epoch, runner.iter) == (4, 16)


def test_resume_of_a_finished_run_trains_nothing(make_runner: Any) -> None:
    make_runner().train()
    runner = make_runner(resume=True)
    runner.train()
    assert runner.iter == 12
    assert runner.model.modes == []


def test_auto_resume_without_a_checkpoint_starts_anew(make_runner: Any) -> None:
    runner = make_runner(resume=True)
    runner.train()
    assert not runner._has_loaded
    assert runner.iter == 12


@pytest.mark.parametrize("resume", [True, False])
def test_a_missing_checkpoint(make_runner: Any, resume: bool) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        make_runner(load_from="gone.pth", resume=resume).train()


def test_bare_weights_cannot_be_resumed_from(make_runner: Any, tmp_path: Path) -> None:
    runner = make_runner(resume=True, load_from=str(tmp_path / "bare.pth"))
    torch.save(runner.model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ValueError, match="cannot be resumed from: expected `epoch` and `iter`"):
        runner.train()


def test_resume_with_another_seed_or_dataset_warns(make_runner: Any) -> None:
    make_runner().train()
    runner = make_runner(
        resume=True, randomness={"seed": 8}, log_level="WARNING", param_scheduler=None
    )
    runner.train_dataloader.dataset.metainfo = {"classes": ("other",)}
    runner.load_or_resume()
    log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
    assert 'random seed in the checkpoint "7" is different' in log
    assert "dataset metainfo from the resumed checkpoint is different" in log
    assert runner.seed == 7
    assert runner.train_dataloader.sampler.seed == 7


def test_resume_on_another_number_of_gpus(make_cfg: Any, make_runner: Any) -> None:
    Runner.from_cfg(Config({**make_cfg(), "gpu_ids": [0, 1]})).train()
    with pytest.raises(RuntimeError, match="Number of GPUs used for current experiment is not"):
        make_runner(resume=True).train()
    scaled = make_runner(resume=True, auto_scale_lr={"enable": True, "base_batch_size": 3})
    scaled.train()
    assert scaled.epoch == 3


def test_hooks_see_checkpoints(make_runner: Any) -> None:
    class Note(Hook):
        def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
            checkpoint["note"] = 5

        def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
            self.note = checkpoint["note"]

    hook = Note()
    first = make_runner()
    first.register_hook(hook)
    first.train()
    second = make_runner(resume=True)
    second.register_hook(hook)
    second.load_or_resume()
    assert hook.note == 5


# What else a run does.


def test_auto_scale_lr(make_runner: Any) -> None:
    runner = make_runner(
        auto_scale_lr={"enable": True, "base_batch_size": 12}, param_scheduler=None
    )
    runner.train()
    assert runner.optim_wrapper.param_groups[0]["lr"] == pytest.approx(0.1 * 3 / 12)


def test_compile(make_cfg: Any) -> None:
    cfg = Config(make_cfg(train_cfg={"by_epoch": False, "max_iters": 1}, log_level="INFO"))
    cfg.compile = {"backend": "eager"}
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert hasattr(runner.model.forward, "_torchdynamo_orig_callable")
    assert not hasattr(runner.model.train_step, "_torchdynamo_orig_callable")
    log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
    assert 'Model has been "compiled". The first few iterations will be slow' in log


def test_activation_checkpointing(make_cfg: Any) -> None:
    cfg = Config(make_cfg(train_cfg={"by_epoch": False, "max_iters": 1}))
    cfg.activation_checkpointing = ["linear"]
    runner = Runner.from_cfg(cfg)
    before = runner.model.linear.forward
    runner.train()
    assert runner.model.linear.forward is not before


def test_efficient_conv_bn_eval_of_the_config(make_cfg: Any) -> None:
    cfg = Config(make_cfg(train_cfg={"by_epoch": False, "max_iters": 1}))
    cfg.efficient_conv_bn_eval = "linear"
    cfg.activation_checkpointing = "linear"
    runner = Runner.from_cfg(cfg)
    runner.train()
    wrapped = runner.model.linear.forward.__wrapped__  # folded first, then checkpointed
    assert wrapped.__self__.graph.find_nodes(op="placeholder")


def test_custom_loops_are_built_by_type(make_runner: Any) -> None:
    runner = make_runner(train_cfg={"type": "IterBasedTrainLoop", "max_iters": 2})
    assert isinstance(runner.train_loop, IterBasedTrainLoop)
    assert runner.train() is runner.model


def test_an_error_flushes_hooks_and_writers(make_runner: Any) -> None:
    closed = []

    class Fails(Hook):
        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            raise OSError("disk on fire")

        def on_exception(self, runner: Any) -> None:
            closed.append("hook")

    runner = make_runner()
    runner.register_hook(Fails())
    runner.visualizer.close = lambda: closed.append("writers")
    with pytest.raises(OSError, match="disk on fire"):
        runner.train()
    assert closed == ["hook", "writers"]


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_a_non_finite_loss_is_noticed(make_runner: Any, action: str) -> None:
    logger = {"type": "LoggerHook", "interval": 2, "detect_anomaly": action}
    runner = make_runner(
        default_hooks={"logger": logger}, log_level="WARNING",
        optim_wrapper={"optimizer": {"type": "SGD", "lr": float("inf")}},
    )  # fmt: skip
    if action == "stop":
        with pytest.raises(FloatingPointError, match="non-finite training loss: loss"):
            runner.train()
    else:
        runner.train()
        log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
        assert "non-finite training loss: loss" in log
