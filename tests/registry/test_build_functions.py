"""Building objects from configs."""

import copy
import sys

import pytest
from torch import nn

from fasttrain.config import Config, ConfigDict
from fasttrain.config.lazy import LazyObject
from fasttrain.registry import (
    Registry,
    build_from_cfg,
    build_model_from_cfg,
    build_runner_from_cfg,
    build_scheduler_from_cfg,
)
from fasttrain.registry.build_functions import build_optimizer_from_cfg
from fasttrain.utils import ManagerMixin


class ResNet:
    def __init__(self, depth, stages=4):
        if depth < 0:
            raise ValueError(f"depth must be positive, got {depth}")
        self.depth, self.stages = depth, stages


class Scheduler:
    def __init__(self, optimizer, by_epoch=True, scale=1):
        self.optimizer, self.scale = optimizer, scale

    @classmethod
    def build_iter_from_epoch(cls, *args, epoch_length, **kwargs):
        return cls(*args, scale=epoch_length, **kwargs)


class Runner:
    def __init__(self, cfg):
        self.cfg = cfg

    @classmethod
    def from_cfg(cls, cfg):
        return cls(cfg)


class Named(ManagerMixin):
    def __init__(self, name, size=1):
        super().__init__(name)
        self.size = size


@pytest.fixture
def registry():
    registry = Registry("backbone", scope="test")
    for module in (ResNet, Named, Scheduler, Runner):
        registry.register_module(module=module)
    return registry


@pytest.mark.parametrize("kind", [dict, ConfigDict, Config])
def test_builds_from_every_kind_of_config(registry, kind):
    cfg = kind({"type": "ResNet", "depth": 50})
    before = copy.deepcopy(cfg)
    model = build_from_cfg(cfg, registry, kind({"stages": 3, "depth": 18}))
    assert (model.depth, model.stages) == (50, 3)
    assert dict(cfg.items()) == dict(before.items())


def test_type_may_be_a_class_a_function_or_in_the_defaults(registry):
    assert build_from_cfg({"type": ResNet, "depth": 1}, registry).depth == 1
    assert build_from_cfg({"type": lambda depth: depth + 1, "depth": 1}, registry) == 2
    assert build_from_cfg({"depth": 1}, registry, {"type": "ResNet"}).depth == 1


def test_lazily_imported_type(registry):
    cfg = ConfigDict(type=LazyObject("collections", "OrderedDict"), a=LazyObject("math", "pi"))
    built = build_from_cfg(cfg, registry)
    assert type(built).__name__ == "OrderedDict" and built["a"] == pytest.approx(3.14159, abs=1e-5)
    assert isinstance(cfg._to_lazy_dict()["type"], LazyObject)


def test_managed_instances_are_kept_by_name(registry):
    first = build_from_cfg({"type": "Named", "name": "kept", "size": 3}, registry)
    assert first is Named.get_instance("kept") and first.size == 3


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ("ResNet", TypeError, "cfg should be a dict, ConfigDict or Config, but got <class 'str'>"),
        ({"depth": 1}, KeyError, '`cfg` or `default_args` must contain the key "type"'),
        ({"type": 3}, TypeError, "type must be a str or valid type, but got <class 'int'>"),
        ({"type": "VGG"}, KeyError, "VGG is not in the test::backbone registry"),
        ({"type": "ResNet", "width": 1}, TypeError, "unexpected keyword argument 'width'"),
        ({"type": "ResNet", "depth": -1}, ValueError, "depth must be positive, got -1"),
    ],
)
def test_errors_say_what_is_wrong(registry, cfg, error, message):
    with pytest.raises(error, match=message):
        build_from_cfg(cfg, registry)


def test_unknown_type_names_the_nearest(registry):
    child = Registry("backbone", parent=registry, scope="child")
    child.register_module(name="ResNetV2", module=dict)
    with pytest.raises(KeyError) as caught:
        registry.build({"type": "Resnet"})
    message = caught.value.args[0]
    assert "The nearest registered names: ResNet, child.ResNetV2." in message
    assert "list it in `custom_imports`" in message
    with pytest.raises(KeyError, match="The nearest registered names: ResNet"):
        child.build({"type": "child.ResNett"})


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_errors_of_a_constructor_say_where_they_come_from(registry):
    with pytest.raises(ValueError) as caught:
        registry.build({"type": "ResNet", "depth": -1})
    assert caught.value.__notes__ == [
        f"while building `ResNet` of module {__name__!r} from the backbone registry"
    ]


def test_wrong_registry_and_defaults(registry):
    with pytest.raises(TypeError, match=r"registry must be a mmengine.Registry object, but got"):
        build_from_cfg({"type": "ResNet"}, "BACKBONES")
    with pytest.raises(TypeError, match="default_args should be a dict, ConfigDict, Config or"):
        build_from_cfg({"type": "ResNet"}, registry, 3)


def test_build_model_of_a_list(registry):
    cfgs = [{"type": nn.Linear, "in_features": 2, "out_features": 3}, {"type": nn.ReLU}]
    model = build_model_from_cfg(cfgs, registry)
    assert isinstance(model, nn.Sequential)
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU]
    assert type(build_model_from_cfg({"type": nn.ReLU}, registry)) is nn.ReLU


def test_build_runner(registry):
    cfg = Config({"runner_type": "Runner", "work_dir": "x"})
    runner = build_runner_from_cfg(cfg, registry)
    assert type(runner) is Runner and runner.cfg.work_dir == "x"
    assert runner.cfg.runner_type == "Runner"
    assert type(build_runner_from_cfg({}, registry)) is Runner
    with pytest.raises(KeyError, match="Walker is not in the test::backbone registry"):
        build_runner_from_cfg({"runner_type": "Walker"}, registry)
    with pytest.raises(AssertionError, match="cfg should be a dict, ConfigDict or Config"):
        build_runner_from_cfg("Runner", registry)
    with pytest.raises(AssertionError, match=r"registry should be a mmengine.Registry object"):
        build_runner_from_cfg({}, "RUNNERS")


def test_build_scheduler(registry):
    cfg = {"type": "Scheduler", "optimizer": "o", "scale": 2}
    assert build_scheduler_from_cfg(cfg, registry).scale == 2
    cfg = {"type": "Scheduler", "convert_to_iter_based": True, "epoch_length": 7}
    scheduler = build_scheduler_from_cfg(cfg, registry, {"optimizer": "o"})
    assert (scheduler.scale, scheduler.optimizer) == (7, "o")
    assert cfg["convert_to_iter_based"] is True


@pytest.mark.parametrize("extra", [{}, {"epoch_length": 3, "by_epoch": False}])
def test_only_epoch_based_schedulers_are_converted(registry, extra):
    cfg = {"type": "Scheduler", "convert_to_iter_based": True, "optimizer": "o", **extra}
    with pytest.raises(AssertionError, match="Only epoch-based parameter scheduler can be"):
        build_scheduler_from_cfg(cfg, registry)


def test_build_scheduler_checks_the_registry():
    with pytest.raises(AssertionError, match=r"registry should be a mmengine.Registry object"):
        build_scheduler_from_cfg({"type": "StepLR"}, "PARAM_SCHEDULERS")


def test_build_optimizer_tells_whose_adafactor_it_is(registry, caplog):
    built = build_optimizer_from_cfg({"type": nn.ReLU}, registry)
    assert type(built) is nn.ReLU and not caplog.records
    with pytest.raises(KeyError, match="Adafactor is not in the"):
        build_optimizer_from_cfg({"type": "Adafactor"}, registry)
    assert "torch's is called TorchAdafactor" in caplog.text
