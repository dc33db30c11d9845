"""Hooks of a few lines: sampler seeds, buffers, cache, pictures, test-time augmentation."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import torch
from torch import nn

from fasttrain.hooks import (
    DistSamplerSeedHook,
    EmptyCacheHook,
    NaiveVisualizationHook,
    NPUProfilerHook,
    PrepareTTAHook,
    SyncBuffersHook,
    empty_cache_hook,
)
from fasttrain.hooks.test_time_aug_hook import build_runner_with_tta
from fasttrain.registry import MODELS


def test_sampler_seed_hook_tells_the_epoch() -> None:
    runner = MagicMock(epoch=3)
    DistSamplerSeedHook().before_train_epoch(runner)
    runner.train_loop.dataloader.sampler.set_epoch.assert_called_once_with(3)
    plain = SimpleNamespace(epoch=3, train_loop=SimpleNamespace(dataloader=[1]))
    DistSamplerSeedHook().before_train_epoch(plain)


def test_sync_buffers_once_per_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced: list[Any] = []
    monkeypatch.setattr(
        "fasttrain.hooks.sync_buffer_hook.all_reduce_params",
        lambda buffers, op: reduced.append((len(buffers), op)),
    )
    runner = SimpleNamespace(model=nn.BatchNorm1d(2))
    hook = SyncBuffersHook()
    hook.after_train_epoch(runner)
    assert reduced == []
    hook.distributed = True
    hook.after_train_epoch(runner)
    hook.before_val_epoch(runner)
    assert reduced == [(3, "mean")]
    hook.before_val_epoch(runner)
    assert reduced == [(3, "mean")] * 2


@pytest.mark.parametrize("where", ["before_epoch", "after_epoch", "after_iter"])
def test_empty_cache_where_asked(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    monkeypatch.setattr(empty_cache_hook, "is_cuda_available", lambda: True)
    options = dict.fromkeys(["before_epoch", "after_epoch", "after_iter"], False)
    hook = EmptyCacheHook(**{**options, where: True})
    counts = []
    for stage, args in [("before_epoch", ()), ("after_epoch", ()), ("after_iter", (0,))]:
        getattr(hook, f"_{stage}")(None, *args)
        counts.append((stage, len(emptied)))
    assert [stage for stage, _ in counts if stage == where]
    assert len(emptied) == 1
    monkeypatch.setattr(empty_cache_hook, "is_cuda_available", lambda: False)
    getattr(hook, f"_{where}")(None, *((0,) if where == "after_iter" else ()))
    assert len(emptied) == 1


def test_npu_profiler_says_that_it_is_not_there() -> None:
    with pytest.raises(ImportError, match="not supported here; use ProfilerHook"):
        NPUProfilerHook()


def test_visualization_draws_unpadded_images() -> None:
    runner, hook = MagicMock(), NaiveVisualizationHook(interval=2, draw_pred=False)
    hook.before_train(runner)
    assert runner.visualizer.add_graph.call_args == call(runner.model, None)
    sample = SimpleNamespace(ori_width=5, ori_height=6, img_path="/data/cat.png")
    inputs = torch.arange(3 * 8 * 8.0).view(1, 3, 8, 8)
    batch = [{"inputs": inputs, "data_sample": sample}]
    hook.after_test_iter(runner, 0, batch, ["prediction"])
    assert not runner.visualizer.add_datasample.called
    hook.after_test_iter(runner, 1, batch, ["prediction"])
    name, image, *rest = runner.visualizer.add_datasample.call_args[0]
    assert name == "cat.png"
    assert rest == [sample, "prediction", True, False]
    assert image.shape == (6, 5, 3)
    np.testing.assert_allclose(image[1, 1], [141.9, 77.9, 13.9], rtol=1e-5)


def test_padding_and_normalisation_are_undone() -> None:
    class Sample(dict):
        scale = (5, 6)
        ori_width, ori_height = 5, 6
        img_path = "cat.png"

    runner = MagicMock()
    sample = Sample(img_norm_cfg={"mean": (1.0, 2.0, 3.0), "std": (2.0, 2.0, 2.0)})
    inputs = torch.arange(3 * 8 * 8.0).view(3, 8, 8)
    batch = [{"inputs": inputs, "data_sample": sample}]
    NaiveVisualizationHook().after_test_iter(runner, 0, batch, ["prediction"])
    image = runner.visualizer.add_datasample.call_args[0][1]
    expected = inputs.permute(1, 2, 0).numpy()[:6, :5] * 2 + [1, 2, 3]
    np.testing.assert_array_equal(image, expected[..., ::-1])


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_tta_wraps_the_model_before_a_test() -> None:
    MODELS.register_module(name="TTAWrapper", module=Wrapper, force=True)
    model = nn.Linear(1, 1)
    runner = SimpleNamespace(model=model)
    PrepareTTAHook({"type": "TTAWrapper"}).before_test(runner)
    assert isinstance(runner.model, Wrapper)
    assert runner.model.module is model


def test_tta_runner_needs_its_configs() -> None:
    with pytest.raises(AssertionError, match="make sure tta_model is defined in your config"):
        build_runner_with_tta({})
    with pytest.raises(AssertionError, match="make sure tta_pipeline is defined in your config"):
        build_runner_with_tta({"tta_model": {}})
