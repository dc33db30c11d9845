"""PrepareTTAHook: wrap the model for test-time augmentation before a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fasttrain.registry import HOOKS, MODELS

from .hook import Hook

if TYPE_CHECKING:
    from fasttrain.runner import Runner


@HOOKS.register_module()
class PrepareTTAHook(Hook):
    """Puts the runner's model into a test-time augmentation model.

    Args:
        tta_cfg: config of the wrapper; `module` is filled in.
    """

    def __init__(self, tta_cfg: dict[str, Any]) -> None:
        self.tta_cfg = tta_cfg

    def before_test(self, runner: Runner) -> None:
        wrapper = MODELS.build(self.tta_cfg, default_args={"module": runner.model})
        runner.model = wrapper


def build_runner_with_tta(cfg: Any) -> Runner:
    """A runner for testing whose model and pipeline do test-time augmentation.

    Args:
        cfg: a full config with `tta_model` and `tta_pipeline`.
    """
    from fasttrain.registry import RUNNERS

    for key in ("tta_model", "tta_pipeline"):
        assert key in cfg, f"please make sure {key} is defined in your config."
    dataset = cfg["test_dataloader"]["dataset"]
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    dataset["pipeline"] = cfg["tta_pipeline"]
    if "runner_type" in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = RUNNERS.get("Runner").from_cfg(cfg)  # type: ignore[union-attr]
    runner.register_hook(PrepareTTAHook(tta_cfg=cfg["tta_model"]))
    return runner
