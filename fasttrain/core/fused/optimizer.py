"""The base of the fused optimizers: torch's step, and the one-call step of AMP training."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer

from fasttrain import native
from fasttrain.core.fused.binding import CPU, Binding, Step, reason_outside
from fasttrain.core.fused.clipping import NO_CLIP, ClipPlan, gradient_values, raise_nonfinite
from fasttrain.core.fused.composed import composed_step
from fasttrain.core.fused.device import bind
from fasttrain.core.fused.opaque import opaque
from fasttrain.core.fused.options import StateOptions
from fasttrain.core.fused.overlap import OverlapNorm
from fasttrain.core.fused.scaling import record_found_inf, scale_of
from fasttrain.core.fused.shadow import shadow_step
from fasttrain.core.fused.sums import GradientSums

logger = logging.getLogger("fasttrain.core.fused")

Group = dict[str, Any]

# Attributes that torch.amp.GradScaler sets around its call of `step`.
AMP_KEYS = ("grad_scale", "found_inf")


BOTH = (
    "overlap_norm and accumulate_in_fp32 exclude each other: the norm taken in backward is that of "
    "gradients, not of their float32 sums; leave one of them off"
)


def _unhooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` without the wrapper that fires step hooks, which the caller has fired already."""
    while getattr(step, "hooked", False):
        step = step.__wrapped__  # type: ignore[attr-defined]
    return step


def _drop_gradients(params: list[Tensor]) -> None:
    for param in params:
        param.grad = None


class FusedOptimizer(torch.optim.Optimizer):
    """Mixin over one of torch's optimizers (or torch's base class) with native `step`s.

    A subclass names its `torch_class`, the group keys that its rule reads (`lr` first), and
    says how a group's values and states map to the native rule. Parameters that the native
    passes do not take (sparse gradients, complex, float64, without a dense layout) take torch's
    own step.

    Args:
        params, *args, **kwargs: as the optimizer of the same name in torch. `fused=False`,
            `foreach=True` or `differentiable=True` choose torch's own step for everything.
        master_weights: keep a float32 copy of float16 and bfloat16 parameters in the state;
            `"split"` keeps the 16 bits that a bfloat16 parameter lacks.
        state_dtype: how moments are stored; default: float32 with master weights, else as the
            parameter.
        stochastic_rounding: round bfloat16 moments up or down at random, by what is cut off.
        seed: of the stochastic rounding.
    """

    torch_class: ClassVar[type[torch.optim.Optimizer]]
    hyper_keys: ClassVar[tuple[str, ...]]
    has_step_count: ClassVar[bool] = True
    default_state_dtype: ClassVar[torch.dtype | None] = None

    _binding: Binding | None = None
    _clip: ClipPlan = NO_CLIP
    _overlap: OverlapNorm | None = None
    _sums: GradientSums | None = None
    _opt_called: bool = False
    _before_step: Callable[[], None] | None = None

    def __init__(
        self,
        params: Any,
        *args: Any,
        master_weights: bool | str = False,
        state_dtype: torch.dtype | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        dtype = self.default_state_dtype if state_dtype is None else state_dtype
        self._options = StateOptions(master_weights, dtype, stochastic_rounding, seed)
        super().__init__(params, *args, **kwargs)
        self._choose_path()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show torch's arguments and ours as one signature."""
        super().__init_subclass__(**kwargs)
        if "torch_class" not in cls.__dict__:
            return
        own = inspect.signature(FusedOptimizer.__init__).parameters
        merged = {
            name: p
            for name, p in inspect.signature(cls.torch_class.__init__).parameters.items()
            if name != "self"
        } | {name: p for name, p in own.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if "__init__" not in cls.__dict__:
            cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                sorted(merged.values(), key=lambda p: p.kind)
            )

    # -- what a subclass says ---------------------------------------------------------------

    @classmethod
    def rule_of(cls, group: Group) -> tuple[str, bool, tuple[float, ...]]:
        """The native rule's name, whether to maximise, and the rule's values."""
        raise NotImplementedError

    @classmethod
    def state_names(cls, group: Group) -> tuple[str, ...]:
        """Names of the per-element states, in the rule's order."""
        raise NotImplementedError

    def new_state(self, group: Group, param: Tensor) -> float:
        """What a new state is filled with."""
        return 0.0

    def _torch_step(self) -> None:
        """Torch's own step over all parameters, without hooks."""
        step = _unhooked(self.torch_class.step)
        # What GradScaler left for the step was seen to already; torch's step must not do it again.
        held = {key: self.__dict__.pop(key) for key in AMP_KEYS if key in self.__dict__}
        try:
            if self._options.plain and self._sums is None:
                step(self)
            else:
                shadow_step(self, step)
        finally:
            self.__dict__.update(held)

    # -- life cycle -------------------------------------------------------------------------

    def _choose_path(self) -> None:
        self._native = native.enabled() and not self._takes_torchs_step()
        self._step_supports_amp_scaling = self._native
        self._drop_gradients: Callable[[list[Tensor]], None] = (
            native.tensor_access().drop_gradients if self._native else _drop_gradients
        )
        self._sparse: set[Tensor] = set()
        self._said = False
        self._binding = None
        self._captured: list[Tensor] = []  # memory that captured steps write to when replayed

    def _takes_torchs_step(self) -> bool:
        """Whether the arguments ask for torch's own step."""
        defaults = self.defaults
        return (
            defaults.get("fused") is False
            or bool(defaults.get("foreach"))
            or bool(defaults.get("differentiable"))
        )

    def __getstate__(self) -> dict[str, Any]:
        own: dict[str, Any] = {"_options": self._options}
        if self._sums is not None:
            own["_sums"] = self._sums
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._choose_path()

    def add_param_group(self, param_group: Group) -> None:
        super().add_param_group(param_group)
        self._binding = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._options.restore(self.param_groups, self.state, state_dict)
        self._binding = None

    # -- steps ------------------------------------------------------------------------------

    @opaque
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update, with torch's semantics.

        Args:
            closure: re-evaluates the model and returns the loss.
        """
        if self._before_step is not None:
            self._call_before_step()
        if self._observed():
            return _observed_step(self, closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # hooks are fired here, not by torch's wrapper

    @opaque
    def fused_step(
        self, *, scaler: Any = None, clip: Any = None, divisor: float = 1.0, zero: bool = False
    ) -> Tensor | None:
        """From gradients to new parameters in two passes, with no read from the device.

        Gradients themselves stay as they are (scaled, not clipped) unless `zero` is set.

        Args:
            scaler: the loss scaler whose scale the gradients carry; a step with a non-finite
                gradient is skipped, and the scaler's `update()` will see it.
            clip: `type` ('norm' or 'value'), `max_norm`, `norm_type`, `clip_value`,
                `error_if_nonfinite`.
            divisor: number of batches whose gradients were summed.
            zero: zero the gradients in place on the way.
        Returns:
            The unscaled norm before clipping, shape [], float32, on the device; None unless
            clipping by norm.
        Raises:
            RuntimeError: the norm is not finite and `clip.error_if_nonfinite` is set.
        """
        self._opt_called = True  # what torch's schedulers look for
        if self._before_step is not None:
            self._call_before_step()
        if self._observed():
            norm: Tensor | None = _observed_fused_step(self, scaler, clip, divisor, zero)
            return norm
        return self._fused_step(scaler, clip, divisor, zero)

    @opaque
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or zero them in place with `set_to_none=False`."""
        if self._sums is not None:
            (self._sums.clear if set_to_none else self._sums.zero)()
        if not set_to_none or torch.autograd._profiler_enabled():
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            self._drop_gradients(group["params"])

    def gradient_of(self, param: Tensor) -> Tensor | None:
        """What a step takes as the gradient of `param`."""
        return param.grad if self._sums is None else self._sums.gradient(param)

    def use_gradient_sums(self, sums: GradientSums | None) -> bool:
        """Step with the gradients that `sums` holds; None: with each parameter's `grad`.

        Returns:
            False when torch's own step was asked for, which cannot: nothing was changed then.
        Raises:
            RuntimeError: the norm is taken in backward, from gradients that are not whole sums.
        """
        if self._takes_torchs_step():
            return False
        if sums is not None and self._overlap is not None:
            raise RuntimeError(BOTH)
        self._sums = sums
        return sums is not None

    def before_next_step(self, call: Callable[[], None]) -> None:
        """Have `call()` run once, just before the next step; a step hook would cost every step."""
        self._before_step = call

    @property
    def is_captured(self) -> bool:
        """Whether a step went into a CUDA graph, whose replays change parameters without a call."""
        return bool(self._captured)

    def enable_overlap_norm(self) -> OverlapNorm:
        """Take the norm's sums while backward runs, so that a step reads gradients once.

        Call it when all parameters are in. Set `active` of what is returned to False for backward
        passes that no step follows (accumulation), and `remove()` it to end.

        Raises:
            RuntimeError: it cannot be right or brings nothing here; says why.
        """
        if not self._native:
            raise RuntimeError("overlap_norm needs the native passes, which are not in use here")
        if self._sums is not None:
            raise RuntimeError(BOTH)
        if self._overlap is None:
            groups = self.param_groups
            params = [p for g in groups for p in g["params"] if reason_outside(p, CPU) is None]
            if not params:
                raise RuntimeError(
                    "overlap_norm sums gradients while they are in the CPU's cache, and none of "
                    "the parameters is one that the CPU's native passes take: leave it off"
                )
            self._overlap = OverlapNorm(params)
        return self._overlap

    def disable_overlap_norm(self) -> None:
        """Go back to a norm pass in each step."""
        if self._overlap is not None:
            self._overlap.remove()
            self._overlap = None

    def _call_before_step(self) -> None:
        call, self._before_step = self._before_step, None
        if call is not None:
            call()

    def _observed(self) -> bool:
        """Whether somebody listens: step hooks, or the profiler."""
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        )

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale: Tensor | None = self.__dict__.get("grad_scale")
        found_inf: Tensor | None = self.__dict__.get("found_inf")
        if self._native:
            done = self._native_step(scale, found_inf, 1.0, NO_CLIP, False, False)
            if done is not None:
                return loss
        self._torch_step_scaled(scale, found_inf)
        return loss

    def _torch_step_scaled(self, scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Torch's step, after the unscaling that torch's GradScaler left to the step."""
        if found_inf is not None and bool(found_inf):  # sync point
            return
        if scale is not None:
            with torch.no_grad():
                grads = (
                    self.gradient_of(p) for group in self.param_groups for p in group["params"]
                )
                for values in gradient_values(g for g in grads if g is not None):
                    values.div_(scale.to(values.device))
        self._torch_step()

    def _fused_step(self, scaler: Any, clip: Any, divisor: float, zero: bool) -> Tensor | None:
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        if self._native:
            plan = self._clip
            if plan.source is not clip:
                plan = self._clip = ClipPlan.of(clip)
            check = scaler is not None or plan.strict
            scale = scale_of(scaler, self) if scaler is not None else None
            done = self._native_step(scale, None, divisor, plan, check, zero)
            if done is not None:
                norm, found_inf = done
                if plan.strict and bool(found_inf):  # sync point
                    raise_nonfinite(plan.power)
                if scaler is not None and found_inf is not None:
                    record_found_inf(scaler, self, found_inf)
                return norm
        return composed_step(
            self, self._torch_step, scaler=scaler, clip=clip, divisor=divisor, zero=zero
        )

    def _native_step(self, *how: Any) -> Step | None:
        """Run both passes, binding (again) first where needed; None when torch must step.

        Args:
            how: what `Binding.run` takes after the optimizer.
        """
        for _ in range(3):
            binding = self._binding
            if binding is None:
                binding = self._binding = bind(self)
            if not binding.usable:
                self._native = self._step_supports_amp_scaling = False
                return None
            found = binding.run(self, *how)
            if not isinstance(found, str):
                return found
            if found == "irregular":
                binding.mend_gradients(self)
            self._binding = bind(self, binding)
        raise RuntimeError(
            "the parameters or their gradients changed again and again during one step; "
            "is another thread changing them?"
        )


# The same with hooks fired and a profiler range around: only used when somebody listens.
_observed_step: Any = torch.optim.Optimizer.profile_hook_step(FusedOptimizer._step)
_observed_fused_step: Any = torch.optim.Optimizer.profile_hook_step(FusedOptimizer._fused_step)
