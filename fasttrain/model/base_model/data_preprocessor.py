"""What happens to a batch between the dataloader and the model: move, normalize, pad, stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fasttrain.model.utils import padded_size, stack_batch
from fasttrain.registry import MODELS

# Built in first: asking an abstract class costs more than the rest of a look at one item.
MAPPINGS = (dict, Mapping)
SEQUENCES = (list, tuple, Sequence)
LEAVES = (str, bytes, int, float, type(None))


@MODELS.register_module()
class BaseDataPreprocessor(nn.Module):
    """Move a batch of nested containers to the model's device.

    Args:
        non_blocking: let copies from pinned memory run beside the host.
    """

    def __init__(self, non_blocking: bool | None = False) -> None:
        super().__init__()
        self._non_blocking = bool(non_blocking)
        self._device = torch.device("cpu")

    def cast_data(self, data: Any) -> Any:
        """Rebuild `data` with every tensor, and everything else that has `.to`, on the device."""
        if isinstance(data, Tensor):
            if data.device == self._device:
                return data
            return data.to(self._device, non_blocking=self._non_blocking)
        if isinstance(data, MAPPINGS):
            return {key: self.cast_data(item) for key, item in data.items()}
        if isinstance(data, LEAVES):
            return data
        if hasattr(data, "to") and not isinstance(data, type):  # a data element, packed sequence
            return data.to(self._device, non_blocking=self._non_blocking)
        if isinstance(data, SEQUENCES):
            kind: Any = type(data)
            items = [self.cast_data(item) for item in data]
            return kind(*items) if hasattr(data, "_fields") else kind(items)
        return data

    def forward(self, data: Any, training: bool = False) -> Any:
        """Prepare one batch; `training` is for subclasses."""
        return self.cast_data(data)

    @property
    def device(self) -> torch.device:
        """Where batches go: the device that the model was moved to last."""
        return self._device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BaseDataPreprocessor:
        # to(), cuda() and the like, of this module or of any above it, all come through here. A
        # probe tells where they lead, without a parameter and whether or not a dtype is meant.
        self._device = fn(torch.empty(0, device=self._device)).device
        return super()._apply(fn, recurse)


@MODELS.register_module()
class ImgDataPreprocessor(BaseDataPreprocessor):
    """Batch images: channel order, normalization, padding to one size, in float32.

    Args:
        mean: 1 or 3 values, subtracted per channel.
        std: 1 or 3 values, divided by per channel.
        pad_size_divisor: height and width are padded to a multiple of it, right and bottom.
        pad_value: value of padded pixels, after normalization.
        bgr_to_rgb: swap channels 0 and 2.
        rgb_to_bgr: the same swap; not both.
        non_blocking: let copies from pinned memory run beside the host.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float | int] | None = None,
        std: Sequence[float | int] | None = None,
        pad_size_divisor: int = 1,
        pad_value: float | int = 0,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        non_blocking: bool | None = False,
    ) -> None:
        super().__init__(non_blocking)
        assert not (bgr_to_rgb and rgb_to_bgr), (
            "`bgr2rgb` and `rgb2bgr` cannot be set to True at the same time"
        )
        assert (mean is None) == (std is None), "mean and std should be both None or tuple"
        self._enable_normalize = mean is not None
        for name, values in (("mean", mean), ("std", std)):
            if values is None:
                continue
            assert len(values) in (1, 3), (
                f"`{name}` should have 1 or 3 values, to be compatible with RGB or gray image, "
                f"but got {len(values)} values"
            )
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self._channel_conversion = rgb_to_bgr or bgr_to_rgb
        self.pad_size_divisor = pad_size_divisor
        self.pad_value = pad_value

    def forward(self, data: dict, training: bool = False) -> dict | list:
        """Replace `data['inputs']`, a list of CHW images or an NCHW tensor, by an NCHW tensor."""
        data = self.cast_data(data)
        inputs = data["inputs"]
        if isinstance(inputs, Tensor):
            data["inputs"] = self._pad_batch(self._convert_batch(inputs))
        elif isinstance(inputs, Sequence) and all(isinstance(item, Tensor) for item in inputs):
            data["inputs"] = self._batch_images(list(inputs))
        else:
            raise TypeError(
                "Output of `cast_data` should be a dict of list/tuple with inputs and "
                f"data_samples, but got {type(data)}: {data}"
            )
        data.setdefault("data_samples", None)
        return data

    def _batch_images(self, images: list[Tensor]) -> Tensor:
        if len(images) > 1 and len({(image.shape, image.dtype) for image in images}) == 1:
            self._check_image(images[0])
            return self._pad_batch(self._convert(torch.stack(images)))
        for image in images:
            self._check_image(image)
        converted = [self._convert(image) for image in images]
        return stack_batch(converted, self.pad_size_divisor, self.pad_value)

    def _check_image(self, image: Tensor) -> None:
        if self._enable_normalize and self.mean.shape[0] == 3:
            assert image.dim() == 3 and image.shape[0] == 3, (
                "If the mean has 3 values, the input tensor should in shape of (3, H, W), but got "
                f"the tensor with shape {image.shape}"
            )

    def _convert_batch(self, batch: Tensor) -> Tensor:
        assert batch.dim() == 4, (
            "The input of `ImgDataPreprocessor` should be a NCHW tensor or a list of tensor, but "
            f"got a tensor with shape: {batch.shape}"
        )
        return self._convert(batch)

    def _convert(self, images: Tensor) -> Tensor:
        """Swap channels and normalize [..., C, H, W]."""
        if self._channel_conversion:
            images = images[..., [2, 1, 0], :, :]
        images = images.float()
        if self._enable_normalize:
            images = (images - self.mean) / self.std
        return images

    def _pad_batch(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[-2:]
        bottom = padded_size(height, self.pad_size_divisor) - height
        right = padded_size(width, self.pad_size_divisor) - width
        if bottom == right == 0:
            return batch
        return F.pad(batch, (0, right, 0, bottom), "constant", self.pad_value)
