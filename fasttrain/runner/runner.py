"""Runner: builds all parts of a training from configs and runs its loops."""

from __future__ import annotations

import copy
import inspect
import os
import time
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader

from fasttrain.config import Config, ConfigDict
from fasttrain.dist import get_dist_info, is_main_process
from fasttrain.evaluator import Evaluator
from fasttrain.hooks.hook import Hook
from fasttrain.logging import MessageHub
from fasttrain.model.efficient_conv_bn_eval import turn_on_efficient_conv_bn_eval
from fasttrain.optim import OptimWrapper, _ParamScheduler
from fasttrain.registry import RUNNERS, DefaultScope
from fasttrain.visualization import Visualizer

from . import builders
from .activation_checkpointing import turn_on_activation_checkpointing
from .base_loop import BaseLoop
from .builders.model import unwrapped
from .checks import check_group
from .ending import clean_ending
from .environment import describe_environment, set_up_process, shared_time
from .hook_registry import new_hook_list
from .interrupt import Interrupt
from .persistence import RunnerCheckpoints

ConfigType = dict | Config | ConfigDict
LAUNCHERS = ("none", "pytorch", "slurm", "mpi")


@RUNNERS.register_module()
class Runner(RunnerCheckpoints):
    """Trains, validates and tests a model with the parts that its arguments describe.

    Each part is given as an object or as the dict to build it from. Only the model and the hooks
    are built at once; the rest is built when it is first needed.

    Args:
        model: a module with `train_step`, `val_step` and `test_step`.
        work_dir: folder of the checkpoints; logs go to a folder in it, named by the time.
        train_dataloader, val_dataloader, test_dataloader: the data.
        train_cfg, val_cfg, test_cfg: the loops; see `build_train_loop`.
        auto_scale_lr: `enable` and `base_batch_size`, see `scale_lr`.
        optim_wrapper: see `build_optim_wrapper`.
        param_scheduler: see `build_param_scheduler`.
        val_evaluator, test_evaluator: the metrics.
        default_hooks: changes of the default hooks by name; None takes one out.
        custom_hooks: further hooks.
        data_preprocessor: goes into the model's config when that has none.
        load_from: checkpoint to load, or to resume from.
        resume: whether to resume; without `load_from`, from the newest in `work_dir`.
        launcher: how the processes of a distributed run were started, 'none' for a single one.
        env_cfg: see `setup_env`.
        log_processor: formats the log.
        log_level: level of the logger.
        visualizer: writes scalars and pictures.
        default_scope: registry in which names are looked up first; None keeps the present one.
        randomness: arguments of `set_randomness`.
        experiment_name: by default the config file's name and the time.
        cfg: the full config, which is logged and saved.
    """

    def __init__(
        self,
        model: nn.Module | dict,
        work_dir: str,
        train_dataloader: DataLoader | dict | None = None,
        val_dataloader: DataLoader | dict | None = None,
        test_dataloader: DataLoader | dict | None = None,
        train_cfg: dict | None = None,
        val_cfg: dict | None = None,
        test_cfg: dict | None = None,
        auto_scale_lr: dict | None = None,
        optim_wrapper: OptimWrapper | dict | None = None,
        param_scheduler: _ParamScheduler | dict | list | None = None,
        val_evaluator: Evaluator | dict | list | None = None,
        test_evaluator: Evaluator | dict | list | None = None,
        default_hooks: dict[str, Hook | dict] | None = None,
        custom_hooks: list[Hook | dict] | None = None,
        data_preprocessor: nn.Module | dict | None = None,
        load_from: str | None = None,
        resume: bool = False,
        launcher: str = "none",
        env_cfg: dict = dict(dist_cfg=dict(backend="nccl")),  # noqa: B006
        log_processor: dict | None = None,
        log_level: str = "INFO",
        visualizer: Visualizer | dict | None = None,
        default_scope: str | None = "mmengine",
        randomness: dict = dict(seed=None),  # noqa: B006
        experiment_name: str | None = None,
        cfg: ConfigType | None = None,
    ) -> None:
        self._work_dir = os.path.abspath(work_dir)
        os.makedirs(self._work_dir, exist_ok=True)
        self.cfg = _as_config(cfg)
        self._interrupt = Interrupt()

        check_group(
            ".",
            train_dataloader=train_dataloader,
            train_cfg=train_cfg,
            optim_wrapper=optim_wrapper,
        )
        check_group("", val_dataloader=val_dataloader, val_cfg=val_cfg, val_evaluator=val_evaluator)
        check_group(
            "", test_dataloader=test_dataloader, test_cfg=test_cfg, test_evaluator=test_evaluator
        )
        if param_scheduler is not None and optim_wrapper is None:
            raise ValueError(
                "param_scheduler should be None when optim_wrapper is None, but got "
                f"{param_scheduler}"
            )
        self._check_scheduler_cfg(param_scheduler)
        self._train_dataloader, self._train_loop = train_dataloader, train_cfg
        self._val_dataloader, self._val_loop = val_dataloader, val_cfg
        self._test_dataloader, self._test_loop = test_dataloader, test_cfg
        self._val_evaluator, self._test_evaluator = val_evaluator, test_evaluator
        self.optim_wrapper = optim_wrapper
        self.auto_scale_lr = auto_scale_lr
        self.param_schedulers = param_scheduler

        if launcher not in LAUNCHERS:
            raise ValueError(f"Invalid launcher type: {launcher}, expected one of {LAUNCHERS}")
        self._launcher = launcher
        self._distributed = launcher != "none"
        self.setup_env(env_cfg)
        self._randomness_cfg = randomness
        self.set_randomness(**randomness)
        self._name_run(experiment_name)

        # Other instances (message hub, visualizer, scope) are found by the experiment's name.
        self.default_scope = None
        if default_scope is not None:
            self.default_scope = DefaultScope.get_instance(
                self._experiment_name, scope_name=default_scope
            )
        self.log_processor = self.build_log_processor(
            {} if log_processor is None else log_processor
        )
        self.logger = self.build_logger(log_level=log_level)
        self._log_env(env_cfg)
        self.message_hub = self.build_message_hub()
        self.visualizer = self.build_visualizer(visualizer)
        if self.cfg:
            self.visualizer.add_config(self.cfg)
        self._load_from = load_from
        self._resume = resume
        self._has_loaded = False

        if isinstance(model, dict) and data_preprocessor is not None:
            model = {"data_preprocessor": data_preprocessor, **model}
        self.model = self.build_model(model)
        self.model = self.wrap_model(self.cfg.get("model_wrapper_cfg"), self.model)
        self._model_name = type(unwrapped(self.model)).__name__

        self._hook_list = new_hook_list()
        self.register_hooks(default_hooks, custom_hooks)
        self.logger.info(f"Hooks will be executed in the following order:\n{self.get_hooks_info()}")
        self.dump_config()

    @classmethod
    def from_cfg(cls, cfg: ConfigType) -> Runner:
        """Build a runner from a config whose keys are the arguments of the constructor."""
        cfg = copy.deepcopy(cfg)
        for key in ("model", "work_dir"):
            if key not in cfg:
                raise KeyError(f"the runner's config needs the key {key!r}, got {sorted(cfg)}")
        names = [name for name in inspect.signature(Runner.__init__).parameters if name != "self"]
        return cls(cfg=cfg, **{name: cfg[name] for name in names if name in cfg and name != "cfg"})

    def _name_run(self, experiment_name: str | None) -> None:
        """Name the run by its time; a second run of the same second takes the next one."""
        if experiment_name is None and self.cfg.filename is not None:
            experiment_name = Path(self.cfg.filename).stem
        created_at = shared_time()
        while True:
            self._timestamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(created_at))
            name = self._timestamp
            if experiment_name is not None:
                name = f"{experiment_name}_{self._timestamp}"
            if not any(kind.check_instance_created(name) for kind in (DefaultScope, MessageHub)):
                break
            created_at += 1
        self._experiment_name = name
        self._log_dir = os.path.join(self._work_dir, self._timestamp)
        os.makedirs(self._log_dir, exist_ok=True)

    def setup_env(self, env_cfg: dict) -> None:
        """Set up the process.

        Args:
            env_cfg: may have `cudnn_benchmark`, `mp_cfg` (`mp_start_method`, `opencv_num_threads`),
                `dist_cfg` (arguments of `init_dist`) and `resource_limit` (open files).
        """
        set_up_process(env_cfg, self._launcher)
        self._rank, self._world_size = get_dist_info()

    def _log_env(self, env_cfg: dict) -> None:
        text = describe_environment(
            env_cfg, launcher=self._launcher, world_size=self._world_size,
            **{**self._randomness_cfg, "seed": self._seed},
        )  # fmt: skip
        self.logger.info(text)
        if self.cfg:
            self.logger.info(f"Config:\n{self.cfg.pretty_text}")

    def dump_config(self) -> None:
        """Write the config into the work folder, under the config file's name or the time."""
        if not is_main_process():
            return
        filename = self.cfg.filename
        name = f"{self._timestamp}.py" if filename is None else os.path.basename(filename)
        self.cfg.dump(os.path.join(self._work_dir, name))

    def train(self) -> nn.Module:
        """Train, and return the model."""
        model = unwrapped(self.model)
        assert hasattr(model, "train_step"), (
            "If you want to train your model, please make sure your model has implemented "
            f"`train_step`; {type(model).__name__} has not."
        )
        if self._val_loop is not None:
            assert hasattr(model, "val_step"), (
                "If you want to validate your model, please make sure your model has implemented "
                f"`val_step`; {type(model).__name__} has not."
            )
        if self._train_loop is None:
            raise RuntimeError(
                "`self._train_loop` should not be None when calling train method. Give the Runner "
                "`train_dataloader`, `train_cfg` and `optim_wrapper`."
            )
        with clean_ending(self):
            return self._train()

    def _train(self) -> nn.Module:
        self._hook_list.invalidate()  # methods may have been put on hooks since the last run
        loop = self.train_loop
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        self.scale_lr(self.optim_wrapper, self.auto_scale_lr)
        if self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
        if self._val_loop is not None:
            _ = self.val_loop  # a mistake in its config must show before the training
        self.call_hook("before_run")
        self._init_model_weights()
        if (modules := self.cfg.get("efficient_conv_bn_eval", None)) is not None:
            turn_on_efficient_conv_bn_eval(unwrapped(self.model), modules)
        if (modules := self.cfg.get("activation_checkpointing", None)) is not None:
            turn_on_activation_checkpointing(unwrapped(self.model), modules)
        self.load_or_resume()
        self.optim_wrapper.initialize_count_status(self.model, loop.iter, loop.max_iters)
        self._maybe_compile("train_step")
        model = loop.run()
        self.call_hook("after_run")
        return model

    def val(self) -> dict:
        """Validate, and return the metrics."""
        if self._val_loop is None:
            raise RuntimeError(
                "`self._val_loop` should not be None when calling val method. Give the Runner "
                "`val_dataloader`, `val_cfg` and `val_evaluator`."
            )
        return self._evaluate(self.val_loop, "val_step")

    def test(self) -> dict:
        """Test, and return the metrics."""
        if self._test_loop is None:
            raise RuntimeError(
                "`self._test_loop` should not be None when calling test method. Give the Runner "
                "`test_dataloader`, `test_cfg` and `test_evaluator`."
            )
        return self._evaluate(self.test_loop, "test_step")

    def _evaluate(self, loop: BaseLoop, step: str) -> dict:
        self._hook_list.invalidate()
        self.call_hook("before_run")
        self.load_or_resume()
        self._maybe_compile(step)
        metrics = loop.run()
        self.call_hook("after_run")
        return metrics

    def _init_model_weights(self) -> None:
        builders.init_weights(self.model)

    def _maybe_compile(self, target: str) -> None:
        builders.compile_model(self.model, self.cfg.get("compile", None), target)


def _as_config(cfg: ConfigType | None) -> Config:
    """A config of the runner's own."""
    if cfg is None:
        return Config({})
    if isinstance(cfg, Config):
        return copy.deepcopy(cfg)
    if isinstance(cfg, dict):
        return Config(cfg)
    raise TypeError(f"cfg should be a dict or a Config, but got {type(cfg)}")
