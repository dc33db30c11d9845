"""MMSeparateDistributedDataParallel: one DDP per child, for models with several optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fasttrain.model.wrappers.distributed import MMDistributedDataParallel
from fasttrain.registry import MODEL_WRAPPERS

if TYPE_CHECKING:
    from fasttrain.optim import OptimWrapperDict


@MODEL_WRAPPERS.register_module()
class MMSeparateDistributedDataParallel(DistributedDataParallel):
    """Wrap every child of `module` that trains in its own DDP (a GAN's two halves, say).

    Args:
        module: a model that updates its children one by one in `train_step`.
        broadcast_buffers: DistributedDataParallel's.
        find_unused_parameters: DistributedDataParallel's.
        kwargs: the other ones of DistributedDataParallel.
    """

    def __init__(
        self,
        module: nn.Module,
        broadcast_buffers: bool = False,
        find_unused_parameters: bool = False,
        **kwargs: Any,
    ) -> None:
        nn.Module.__init__(self)  # it is a DDP by name only; its children are DDPs
        self.module = module
        device = _training_device()
        for name, child in module._modules.items():
            if child is None:
                continue
            child = child.to(device)
            if any(param.requires_grad for param in child.parameters()):
                child = MMDistributedDataParallel(
                    module=child,
                    broadcast_buffers=broadcast_buffers,
                    find_unused_parameters=find_unused_parameters,
                    **kwargs,
                )
            module._modules[name] = child

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapperDict
    ) -> dict[str, Tensor]:
        """The model's own train_step, which calls the wrapped children."""
        return self.module.train_step(data, optim_wrapper)  # type: ignore[operator]

    def val_step(self, data: dict | tuple | list) -> list:
        """The model's own val_step."""
        return self.module.val_step(data)  # type: ignore[operator]

    def test_step(self, data: dict | tuple | list) -> list:
        """The model's own test_step."""
        return self.module.test_step(data)  # type: ignore[operator]

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Skip the synchronization of gradients in every wrapped child."""
        with ExitStack() as stack:
            for child in self.module.children():
                if isinstance(child, DistributedDataParallel):
                    stack.enter_context(child.no_sync())
            yield

    def train(self, mode: bool = True) -> MMSeparateDistributedDataParallel:
        """Set the mode of the wrapper and of the model."""
        self.training = mode
        self.module.train(mode)
        return self


def _training_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
