"""The optimizer wrapper over NVIDIA's apex, for those who still use its mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fasttrain.registry import OPTIM_WRAPPERS

from .optimizer_wrapper import OptimWrapper

try:
    import apex.amp as apex_amp
except ImportError:
    apex_amp = None


@OPTIM_WRAPPERS.register_module()
class ApexOptimWrapper(OptimWrapper):
    """Mixed precision by apex; model and optimizer are initialized at the first forward pass.

    Args:
        kwargs: arguments of `OptimWrapper`; all others are those of `apex.amp.initialize`.
    """

    def __init__(
        self,
        opt_level: str = "O1",
        loss_scale: float | str | None = "dynamic",
        enabled: bool | None = True,
        cast_model_type: torch.dtype | None = None,
        patch_torch_functions: bool | None = None,
        keep_batchnorm_fp32: bool | str | None = None,
        master_weights: bool | None = None,
        cast_model_outputs: torch.dtype | None = None,
        num_losses: int = 1,
        verbosity: int = 1,
        min_loss_scale: float | None = None,
        max_loss_scale: float | None = 2.0**24,
        **kwargs: Any,
    ) -> None:
        assert apex_amp is not None, (
            "Apex is not installed. Please check https://github.com/NVIDIA/apex#linux, "
            "or use AmpOptimWrapper, which needs no apex."
        )
        super().__init__(**kwargs)
        self.opt_level = opt_level
        self.loss_scale = loss_scale
        self.enabled = enabled
        self.cast_model_type = cast_model_type
        self.patch_torch_functions = patch_torch_functions
        self.keep_batchnorm_fp32 = keep_batchnorm_fp32
        self.master_weights = master_weights
        self.cast_model_outputs = cast_model_outputs
        self.num_losses = num_losses
        self.verbosity = verbosity
        self.min_loss_scale = min_loss_scale
        self.max_loss_scale = max_loss_scale
        self._apex_amp_state_dict: dict[str, Any] | None = None

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Backpropagate `loss` times apex's loss scale and count the iteration."""
        self._before_backward()
        with apex_amp.scale_loss(loss, self.optimizer) as scaled_loss:
            scaled_loss.backward(**kwargs)
        self._inner_count += 1

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and `apex_amp`."""
        state = super().state_dict()
        state["apex_amp"] = apex_amp.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._apex_amp_state_dict = state.pop("apex_amp", None)
        self._restore_apex()
        super().load_state_dict(state)

    def _restore_apex(self) -> None:
        # apex can take its state only once it has initialized the optimizer.
        if self._apex_amp_state_dict is not None and hasattr(self.optimizer, "_amp_stash"):
            apex_amp.load_state_dict(self._apex_amp_state_dict)
            self._apex_amp_state_dict = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:  # type: ignore[override]
        """Context of the forward pass; the first one lets apex take model and optimizer over."""
        with super().optim_context(model):
            if not hasattr(self.optimizer, "_amp_stash"):
                _, self.optimizer = apex_amp.initialize(
                    model,
                    self.optimizer,
                    opt_level=self.opt_level,
                    loss_scale=self.loss_scale,
                    enabled=self.enabled,
                    cast_model_type=self.cast_model_type,
                    patch_torch_functions=self.patch_torch_functions,
                    keep_batchnorm_fp32=self.keep_batchnorm_fp32,
                    master_weights=self.master_weights,
                    cast_model_outputs=self.cast_model_outputs,
                    num_losses=self.num_losses,
                    verbosity=self.verbosity,
                    min_loss_scale=self.min_loss_scale,
                    max_loss_scale=self.max_loss_scale,
                )
                self._restore_apex()
            yield
