"""The root registries."""

import pytest

from fasttrain import registry as package
from fasttrain.registry import MODELS, OPTIMIZERS, PARAM_SCHEDULERS, RUNNERS, Registry, root
from fasttrain.registry.build_functions import build_optimizer_from_cfg

ROOTS = {name: value for name, value in vars(root).items() if isinstance(value, Registry)}


@pytest.mark.parametrize("name", sorted(ROOTS))
def test_roots_are_public_and_of_one_scope(name):
    assert getattr(package, name) is ROOTS[name]
    assert name in package.__all__
    assert ROOTS[name].scope == "mmengine" and ROOTS[name].parent is None


def test_names_are_told_apart():
    assert len({registry.name for registry in ROOTS.values()}) == len(ROOTS) == 23


def test_special_build_functions():
    assert MODELS.build_func is package.build_model_from_cfg
    assert RUNNERS.build_func is package.build_runner_from_cfg
    assert PARAM_SCHEDULERS.build_func is package.build_scheduler_from_cfg
    assert OPTIMIZERS.build_func is build_optimizer_from_cfg


def test_locations_are_rooms_of_this_package():
    for registry in ROOTS.values():
        assert all(location.startswith("fasttrain.") for location in registry._locations)


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        ("MODELS", "ImgDataPreprocessor"),
        ("OPTIMIZERS", "AdamW"),
        ("PARAM_SCHEDULERS", "CosineAnnealingLR"),
        ("HOOKS", "CheckpointHook"),
        ("LOOPS", "EpochBasedTrainLoop"),
        ("DATA_SAMPLERS", "DefaultSampler"),
        ("FUNCTIONS", "pseudo_collate"),
        ("EVALUATOR", "Evaluator"),
        ("RUNNERS", "Runner"),
        ("LOG_PROCESSORS", "LogProcessor"),
        ("VISUALIZERS", "Visualizer"),
        ("OPTIM_WRAPPERS", "AmpOptimWrapper"),
        ("WEIGHT_INITIALIZERS", "Kaiming"),
        ("MODEL_WRAPPERS", "MMDistributedDataParallel"),
    ],
)
def test_a_look_up_imports_the_room(registry, name):
    found = getattr(package, registry).get(name)
    assert found is not None and found.__module__.startswith("fasttrain.")
