"""The updater trains as a hand-written loop does, on the fused path and on the composed one."""

from __future__ import annotations

import copy
import math
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fasttrain.core.precision import Precision
from fasttrain.core.update import (
    GradClip,
    Updater,
    composed_step,
    fused_step_of,
    gradients_of,
    group_size,
    is_due,
)
from support import assert_same, check_save_and_resume

SCALER = {"init_scale": 4.0, "growth_interval": 3}


class OneCallSGD(torch.optim.SGD):
    """Plain SGD with a one-call step composed of torch's parts; notes its calls."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr)
        self.calls: list[dict[str, Any]] = []

    def fused_step(
        self, *, scaler: Any = None, clip: Any = None, divisor: float = 1.0, zero: bool = False
    ) -> Tensor | None:
        self.calls.append({"scaler": scaler, "clip": clip, "divisor": divisor, "zero": zero})
        grads = [p.grad for p in gradients_of(self) if p.grad is not None]
        torch._foreach_div_(grads, divisor)
        norm = None
        if scaler is not None:
            scaler.unscale_(self)
        if clip is not None:
            norm = clip.apply(gradients_of(self))
        found = not all(torch.isfinite(g).all() for g in grads)
        if scaler is not None:
            scaler.record_found_inf(self, torch.tensor(float(found)))
        if not found:
            self.step()
        if zero:
            torch._foreach_zero_(grads)
        return norm


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def losses(model: nn.Module, num_iters: int) -> Any:
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_iters):
        yield model(torch.randn(5, 3, generator=generator)).square().mean()


def hand_written(num_iters: int, k: int, clip: GradClip | None) -> tuple[nn.Module, list[float]]:
    """The reference: full groups of k, and a last one that sums what is left."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    remainder = num_iters % k
    for index, loss in enumerate(losses(model, num_iters)):
        (loss / (k if index < num_iters - remainder else remainder)).backward()
        if (index + 1) % k == 0 or index + 1 == num_iters:
            if clip is not None:
                norm = clip.apply(list(model.parameters()))
                norms.append(math.nan if norm is None else float(norm))
            optimizer.step()
            optimizer.zero_grad()
    return model, norms


CLIPS = [
    None,
    GradClip(max_norm=0.1),
    GradClip(max_norm=0.1, norm_type=math.inf),
    GradClip(type="value", clip_value=0.01),
]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_trains_as_a_hand_written_loop(
    clip: GradClip | None, k: int, fused: bool, precision: str
) -> None:
    reference, expected_norms = hand_written(10, k, clip)
    model = make_model()
    optimizer = (OneCallSGD if fused else torch.optim.SGD)(model.parameters(), lr=0.1)
    updater = Updater(
        optimizer, precision=Precision(precision, loss_scale=SCALER), clip=clip, accumulation=k
    )
    updater.begin(0, 10)
    norms = [updater.update(loss) for loss in losses(model, 10)]
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
        assert ours.grad is None
    if clip is not None and clip.type == "norm":
        shown = [float(norm) for norm in norms if norm is not None]
        assert shown == pytest.approx(expected_norms, rel=1e-5)
        assert len(shown) == math.ceil(10 / k)
    else:
        assert norms == [None] * 10


def test_fused_step_divides_instead_of_the_loss() -> None:
    model = make_model()
    optimizer = OneCallSGD(model.parameters(), lr=0.1)
    updater = Updater(optimizer, accumulation=4)
    updater.begin(0, 6)
    for loss in losses(model, 6):
        assert updater.scale(loss) is loss
        updater.update(loss)
    assert [call["divisor"] for call in optimizer.calls] == [4.0, 2.0]


@pytest.mark.parametrize("fused", [False, True])
def test_kept_gradients_are_zeroed(fused: bool) -> None:
    model = make_model()
    optimizer = (OneCallSGD if fused else torch.optim.SGD)(model.parameters(), lr=0.1)
    updater = Updater(optimizer, set_to_none=False)
    kept = []
    for loss in losses(model, 2):
        updater.update(loss)
        kept.append([parameter.grad for parameter in model.parameters()])
    for first, second in zip(*kept, strict=True):
        assert first is second is not None
        assert not bool(first.any())
    if isinstance(optimizer, OneCallSGD):
        assert [call["zero"] for call in optimizer.calls] == [True, True]


def test_same_weights_when_step_is_replaced_midway() -> None:
    reference, _ = hand_written(4, 2, None)
    model = make_model()
    optimizer = OneCallSGD(model.parameters(), lr=0.1)
    updater = Updater(optimizer, accumulation=2)
    updater.begin(0, 4)
    for index, loss in enumerate(losses(model, 4)):
        if index == 2:
            optimizer.step = partial(optimizer.step)  # type: ignore[method-assign]
        updater.update(loss)
    assert len(optimizer.calls) == 1
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_torch_scheduler_keeps_the_fused_step_and_does_not_warn() -> None:
    model = make_model()
    optimizer = OneCallSGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
    optimizer.calls.clear()
    updater = Updater(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loss in losses(model, 2):
            updater.update(loss)
            scheduler.step()
    assert len(optimizer.calls) == 2


def test_fused_step_of_plain_optimizers() -> None:
    model = make_model()
    assert fused_step_of(torch.optim.SGD(model.parameters(), lr=0.1)) is None
    optimizer = OneCallSGD(model.parameters(), lr=0.1)
    assert fused_step_of(optimizer) is not None
    optimizer.step = lambda: None  # type: ignore[method-assign,assignment]
    assert fused_step_of(optimizer) is None


@pytest.mark.parametrize("fused", [False, True])
def test_nonfinite_step_is_skipped_with_a_scaler(fused: bool) -> None:
    model = make_model()
    before = copy.deepcopy(dict(model.state_dict()))
    optimizer = (OneCallSGD if fused else torch.optim.SGD)(model.parameters(), lr=0.1)
    precision = Precision("fp16", loss_scale=SCALER)
    updater = Updater(optimizer, precision=precision, clip=GradClip(max_norm=1.0))
    updater.update(next(losses(model, 1)) * math.inf)
    assert_same(dict(model.state_dict()), before)
    assert precision.scaler is not None
    assert precision.scaler.get_scale() == 2.0
    assert float(precision.scaler.skipped) == 1


def test_fixed_scale_stays() -> None:
    model = make_model()
    updater = Updater(
        torch.optim.SGD(model.parameters(), lr=0.1), precision=Precision("fp16", loss_scale=8.0)
    )
    for loss in losses(model, 3):
        updater.update(loss * math.inf)
    assert updater.precision.state_dict()["scale"] == 8.0


@pytest.mark.parametrize("fused", [False, True])
def test_error_if_nonfinite_raises(fused: bool) -> None:
    model = make_model()
    optimizer = (OneCallSGD if fused else torch.optim.SGD)(model.parameters(), lr=0.1)
    updater = Updater(optimizer, clip=GradClip(max_norm=1.0, error_if_nonfinite=True))
    with pytest.raises(RuntimeError, match="non-finite"):
        updater.update(next(losses(model, 1)) * math.inf)


def test_step_takes_arguments_of_the_optimizer() -> None:
    model = make_model()
    updater = Updater(OneCallSGD(model.parameters(), lr=0.1))
    updater.backward(next(losses(model, 1)), retain_graph=True)
    seen = []
    updater.step(closure=lambda: seen.append(1))
    updater.zero_grad(set_to_none=False)
    assert seen == [1]
    assert all(bool((p.grad == 0).all()) for p in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resumes(precision: str) -> None:
    def make() -> Any:
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, Updater(
            optimizer,
            precision=Precision(precision, loss_scale=SCALER),
            clip=GradClip(max_norm=1.0),
        )

    def advance(part: Any, step: int) -> Any:
        model, updater = part
        factor = math.inf if step == 5 and precision == "fp16" else 1.0
        return updater.update(model(torch.full((1, 3), float(step))).sum() * factor)

    def state(part: Any) -> Any:
        model, updater = part
        return {
            "model": dict(model.state_dict()),
            "optimizer": updater.optimizer.state_dict(),
            "precision": updater.precision.state_dict(),
        }

    def load(part: Any, saved: Any) -> None:
        model, updater = part
        model.load_state_dict(saved["model"])
        updater.optimizer.load_state_dict(saved["optimizer"])
        updater.precision.load_state_dict(saved["precision"])

    check_save_and_resume(make, advance, state=state, load=load)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("max_count", [-1, 0, 1, 6, 7, 10])
def test_group_size_is_the_number_of_losses_in_a_group(k: int, max_count: int) -> None:
    num_iters = max_count if max_count >= 0 else 4 * k
    groups: list[list[int]] = [[]]
    for count in range(num_iters):
        groups[-1].append(group_size(count, k, max_count))
        if is_due(count + 1, k, max_count):
            groups.append([])
    assert groups.pop() == []
    for sizes in groups:
        assert sizes == [len(sizes)] * len(sizes)


def test_due_and_sync_follow_the_counts() -> None:
    model = make_model()
    updater = Updater(torch.optim.SGD(model.parameters(), lr=0.1), accumulation=3)
    updater.begin(3, 8)
    shown = []
    for loss in losses(model, 5):
        sync = updater.should_sync
        updater.update(loss)
        shown.append((sync, updater.due))
    assert shown == [(False, False), (False, False), (True, True), (False, False), (True, True)]


def test_composed_step_without_clip_or_scaler_is_the_optimizers() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    assert composed_step(torch.optim.SGD([parameter], lr=0.5)) is None
    assert parameter.tolist() == [0.5, 0.5]


def test_gradients_of_leaves_out_what_has_none() -> None:
    with_grad, without, frozen = (nn.Parameter(torch.ones(1)) for _ in range(3))
    with_grad.grad = torch.ones(1)
    frozen.grad = torch.ones(1)
    frozen.requires_grad_(False)
    optimizer = torch.optim.SGD([{"params": [with_grad, without]}, {"params": [frozen]}], lr=0.1)
    assert gradients_of(optimizer) == [with_grad]


def test_bad_arguments() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match="accumulation must be >= 1, got 0"):
        Updater(optimizer, accumulation=0)
    with pytest.raises(ValueError, match="overlap_norm=True needs a fused optimizer, got SGD"):
        Updater(optimizer, overlap_norm=True)
    with pytest.raises(ValueError, match='should be "norm" or "value" but got both'):
        GradClip(type="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='of type "value" needs clip_value, got none'):
        GradClip(type="value")


def test_overlap_norm_is_passed_on() -> None:
    class Overlapping(OneCallSGD):
        overlaps = False

        def enable_overlap_norm(self) -> None:
            self.overlaps = True

    optimizer = Overlapping(make_model().parameters(), lr=0.1)
    Updater(optimizer, overlap_norm=True)
    assert optimizer.overlaps


def test_gradients_of_another_model_are_refused() -> None:
    model = nn.Linear(2, 1)
    updater = Updater(torch.optim.SGD(model.parameters(), lr=0.1), accumulation=2)
    with pytest.raises(ValueError, match=r"gradient 0, of shape \(3,\), fits none .* 2 parameters"):
        updater.load_state_dict({"gradients": {0: torch.ones(3)}})
