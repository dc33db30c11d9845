"""What bench_step compares: parameters and gradients, and the ways to step them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fasttrain.core import fused

SCALE = 65536.0
MAX_NORM = 1.0
CLIP = SimpleNamespace(type="norm", max_norm=MAX_NORM, norm_type=2.0, error_if_nonfinite=False)
Shapes = list[tuple[int, ...]]
Clock = Callable[[Callable[[], Any]], float]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        bytes_per_param: what our step must move, for the share of the stream's bandwidth.
        read_bytes: those of them that are only read; the others are read and written.
        peers: names of torch's implementations, see `CHOICES`.
    """

    name: str
    title: str
    shapes: Callable[[], Shapes]
    bytes_per_param: float
    optimizer: str = "AdamW"
    kwargs: Any = None
    scaled: bool = True
    zero: bool = False
    overlap: bool = False
    dtype: torch.dtype = torch.float32
    peers: tuple[str, ...] = ("fused", "foreach", "plain")
    device: str = "cpu"
    read_bytes: float = 8


CHOICES = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "plain": {"foreach": False},
    "compiled": {"foreach": True},
}


def resnet50_shapes() -> list[tuple[int, ...]]:
    """The shapes of ResNet-50's parameters, 25.6 million elements."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for shape in ((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)):
                shapes += [shape, shape[:1], shape[:1]]
            if block == 0:
                shapes += [(4 * width, channels, 1, 1), (4 * width,), (4 * width,)]
            channels = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def small_shapes() -> list[tuple[int, ...]]:
    """400 tensors of 1 to 4,096 elements."""
    generator = torch.Generator().manual_seed(1)
    return [(int(torch.randint(1, 4097, (), generator=generator)),) for _ in range(400)]


class Gradients:
    """The gradients of a row, the same for every contestant; one of them steps at a time."""

    def __init__(self, row: Row) -> None:
        self.shapes = row.shapes()
        generator = torch.Generator(row.device).manual_seed(7)
        scale = SCALE if row.scaled else 1.0
        self.source = [
            torch.randn(s, generator=generator, device=row.device).mul_(scale).to(row.dtype)
            for s in self.shapes
        ]
        self.grads = [torch.empty_like(g) for g in self.source]

    def write(self) -> None:
        """Write all gradients, as a backward pass would."""
        torch._foreach_copy_(self.grads, self.source)


class Contestant:
    """One way to step: parameters, their gradients, and `step`, which is what is timed."""

    def __init__(self, row: Row, gradients: Gradients) -> None:
        generator = torch.Generator(row.device).manual_seed(0)
        self.row, self.gradients = row, gradients
        self.params = [
            nn.Parameter(
                torch.randn(s, generator=generator, device=row.device).mul_(0.05).to(row.dtype)
            )
            for s in gradients.shapes
        ]
        self.scaler = torch.amp.GradScaler(row.device, init_scale=SCALE)
        self.scaler.scale(torch.ones((), device=row.device))

    def prepare(self) -> None:
        """Give every parameter its gradient."""
        self.gradients.write()
        for param, grad in zip(self.params, self.gradients.grads, strict=True):
            param.grad = grad

    def step(self) -> None:
        raise NotImplementedError

    def weights(self) -> list[Tensor]:
        return [p.detach() for p in self.params]


class Composed(Contestant):
    """What a user writes with torch and an optimizer that `make` builds from parameters."""

    def __init__(self, row: Row, gradients: Gradients, make: Callable[[Any], Any]) -> None:
        super().__init__(row, gradients)
        self.masters = self.params
        if row.dtype != torch.float32:
            self.masters = [nn.Parameter(p.detach().float()) for p in self.params]
        self.optimizer = make(self.masters)

    def clip(self) -> None:
        """Clip all gradients by their norm."""
        torch.nn.utils.clip_grad_norm_(self.masters, MAX_NORM)

    def step(self) -> None:
        if self.masters is not self.params:
            for master, param in zip(self.masters, self.params, strict=True):
                assert param.grad is not None
                master.grad = param.grad.float()
        if self.row.scaled:
            self.scaler.unscale_(self.optimizer)
        self.clip()
        if self.row.scaled:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.masters is not self.params:
            with torch.no_grad():
                torch._foreach_copy_([*self.params], [*self.masters])
            self.optimizer.zero_grad()
        if self.row.zero:
            torch._foreach_zero_([p.grad for p in self.params if p.grad is not None])
        else:
            for param in self.params:
                param.grad = None


class Compiled(Composed):
    """The same with norm, clip and update as one function that torch.compile turned into code."""

    def __init__(self, row: Row, gradients: Gradients, make: Callable[[Any], Any]) -> None:
        super().__init__(row, gradients, make)
        update = type(self.optimizer).step

        def clip_and_update() -> None:
            super(Compiled, self).clip()
            update(self.optimizer)

        self.optimizer.step = torch.compile(clip_and_update)

    def clip(self) -> None:
        """Left to the compiled step."""


class Ours(Contestant):
    """The same on the fused step."""

    def __init__(self, row: Row, gradients: Gradients) -> None:
        super().__init__(row, gradients)
        low = row.dtype != torch.float32
        self.optimizer = getattr(fused, row.optimizer)(
            self.params, **row.kwargs, master_weights=low
        )
        self.overlap = self.optimizer.enable_overlap_norm() if row.overlap else None

    def prepare(self) -> None:
        super().prepare()
        if self.overlap is not None:
            for param in self.params:
                self.overlap._take(param)

    def step(self) -> None:
        self.optimizer.fused_step(
            scaler=self.scaler if self.row.scaled else None, clip=CLIP, zero=self.row.zero
        )
        if self.row.scaled:
            self.scaler.update()
        if not self.row.zero:
            self.optimizer.zero_grad()


def check_agreement(sides: Mapping[str, Contestant], dtype: torch.dtype) -> None:
    """Three steps of everyone end at the same weights.

    Raises:
        AssertionError: they do not; the message names the contestant.
    """
    for side in sides.values():
        for _ in range(3):
            side.prepare()
            side.step()
    expected = sides["ours"].weights()
    rtol = 1e-5 if dtype == torch.float32 else 1e-2
    for name, side in sides.items():
        for left, right in zip(expected, side.weights(), strict=True):
            if side is not sides["ours"]:
                torch.testing.assert_close(
                    left, right, rtol=rtol, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
                )


def make_contestants(
    row: Row, extra: Mapping[str, Callable[[Any], Any]] | None = None
) -> dict[str, Contestant]:
    """Ours and torch's ways, agreeing after three steps.

    Args:
        row: the comparison.
        extra: name -> what builds another peer's optimizer from parameters.
    """
    gradients = Gradients(row)
    sides: dict[str, Contestant] = {"ours": Ours(row, gradients)}
    theirs = getattr(torch.optim, row.optimizer)
    for peer in row.peers:
        choice = {**row.kwargs, **CHOICES[peer]}
        kind = Compiled if peer == "compiled" else Composed
        sides[f"torch {peer}"] = kind(row, gradients, lambda p, c=choice: theirs(p, **c))
    for name, make in (extra or {}).items():
        sides[name] = Composed(row, gradients, make)
    check_agreement(sides, row.dtype)
    return sides


def host_seconds(call: Callable[[], Any]) -> float:
    """Time on the host's clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_rounds(
    sides: Mapping[str, Contestant],
    streams: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Clock = host_seconds,
) -> dict[str, list[float]]:
    """Seconds of each contestant's step and of each stream, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in [*sides, *streams]}
    names = list(sides)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                sides[name].prepare()
                times[name].append(clock(sides[name].step))
            for name, stream in streams.items():
                times[name].append(clock(stream))
    finally:
        gc.enable()
    return times
